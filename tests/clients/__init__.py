"""Programs of others, at the versions that users have, in an environment of their own."""
