"""A small Hugging Face hub on the loopback interface, for tests that go through the real client."""

from .server import FakeHub as FakeHub
from .server import Request as Request
from .store import Repo as Repo
