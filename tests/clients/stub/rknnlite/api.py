"""The double's RKNNLite, for a program that imports it by name."""

from tests.runtime.double import lite
from tests.runtime.double.driver import Driver


class RKNNLite(lite.install(Driver()).RKNNLite):  # type: ignore[name-defined,misc]
    """As the wheel's, with the masks that others use."""

    NPU_CORE_0_1, NPU_CORE_0_1_2, NPU_CORE_ALL = 3, 7, 0xFFFF
