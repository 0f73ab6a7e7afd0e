"""Stand-in for OpenCV: rknn-toolkit2 imports it for image inputs, which a text model has not."""


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(
        f"rknn-toolkit2 asked for cv2.{name}, which needs OpenCV: "
        "run `pip install opencv-python-headless==4.11.0.86` with the toolchain's Python"
    )
