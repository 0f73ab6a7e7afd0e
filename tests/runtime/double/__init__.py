"""A double of the vendor's board software, written from what the wheel of rknn-toolkit-lite2 2.5.0 shows.

`driver` stands for librknnrt.so: the functions of its C interface, as the wheel declares and calls them.
`lite` stands for the wheel's Python code above it. The contract tests run on `lite` over `driver`, and under
emulation on the real wheel over `driver`.
"""
