"""Arguments of `BertEncoder.delegate_to`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from tfbert_npu.runtime.files import artifact_sha256
from tfbert_npu.runtime.load import Options

OnError = Literal["raise", "tf", "onnx"]


@dataclass(frozen=True)
class Settings:
    """What an encoder is delegated to, and how."""

    artifact_dir: str
    """Absolute path."""
    runtime: Options
    tf_on_error: bool = False
    """Whether the layer's own weights stand in while the backend fails. The runtime knows nothing of
    TensorFlow, so this is no value of its `on_error`."""
    allow_other_weights: bool = False
    sha256: str | None = None
    """`artifact_sha256` that the artifact must have; None: any. "": none, the file did not say."""

    @classmethod
    def of(cls, artifact_dir: str | os.PathLike[str], options: Mapping[str, Any]) -> Settings:
        """Settings of a caller's arguments, or of `to_dict`.

        Raises:
            TypeError: There is no such option.
            ValueError: A value is unknown or impossible.
        """
        known = {field.name for field in fields(Options)} | {"allow_other_weights"}
        unknown = sorted(options.keys() - known)
        if unknown:
            raise TypeError(f"delegate_to has no option {unknown[0]!r}; known are {', '.join(sorted(known))}")
        values = dict(options)
        allow_other_weights = values.pop("allow_other_weights", False)
        on_error = values.get("on_error", "raise")
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error must be one of {get_args(OnError)}, got {on_error!r}")
        if on_error == "tf":
            del values["on_error"]
        return cls(
            os.path.abspath(os.path.expanduser(artifact_dir)),
            Options(**values),
            tf_on_error=on_error == "tf",
            allow_other_weights=allow_other_weights,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a layer's configuration; `of` reads them again.

        The toolchain is a program and stays out: no file may name one. The artifact's digest goes along, so
        that a file finds that very artifact or none.
        """
        values = asdict(self.runtime)
        del values["toolchain"]
        if self.tf_on_error:
            values["on_error"] = "tf"
        if not isinstance(values["cores"], (int, str)):
            values["cores"] = list(values["cores"])
        return {
            "artifact_dir": self.artifact_dir,
            "artifact_sha256": artifact_sha256(self.artifact_dir) if self.sha256 is None else self.sha256,
            **values,
            "allow_other_weights": self.allow_other_weights,
        }
