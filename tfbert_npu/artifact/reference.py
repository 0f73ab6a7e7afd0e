"""`reference.npz`: a few inputs and the float32 model's outputs, so that a board can check itself."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfbert_npu.errors import ArtifactError
from tfbert_npu.heads import OutputSpec

REFERENCE = "reference.npz"

_BUDGET = 4 * 2**20
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Reference:
    """Inputs with the outputs that the model itself gives for them.

    Of an output with a value for each token or masked position, a sample of them is kept, so that the file
    stays below about 4 MiB whatever the vocabulary.
    """

    inputs: Mapping[str, np.ndarray]
    """int32 [N, S] under TF-Hub's names, padded to the longest; `masked_lm_positions` [N, P]."""
    outputs: Mapping[str, np.ndarray]
    """float32 [N, K, ...] where `places` has the output, else [N, ...]."""
    places: Mapping[str, np.ndarray]
    """For an output with values along axis 1: int32 [N, K], where in it the kept ones stand."""
    source_sha256: str
    """Hash of the weights, as in the manifest."""

    @classmethod
    def sampled(
        cls,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray],
        specs: Sequence[OutputSpec],
        source_sha256: str,
    ) -> Reference:
        """Keep of the outputs what fits the file.

        Args:
            inputs: As `inputs` of the class.
            outputs: float32 [N, ...], whole.
            specs: What the axes of each output are.
            source_sha256: See the class.
        """
        mask = inputs["input_mask"]
        kept: dict[str, np.ndarray] = {}
        places: dict[str, np.ndarray] = {}
        for spec in specs:
            value = np.asarray(outputs[spec.name], np.float32)
            if not {"S", "P"} & set(spec.axes[1:2]):
                kept[spec.name] = value
                continue
            bytes_each = max(value[:, :1].nbytes, 1)
            count = int(np.clip(_BUDGET // len(specs) // bytes_each, 1, value.shape[1]))
            lengths = mask.sum(axis=1) if spec.per_token else np.full(len(value), value.shape[1])
            last = np.maximum(lengths - 1, 0)[:, None]
            places[spec.name] = np.rint(last * np.linspace(0, 1, count)).astype(np.int32)
            kept[spec.name] = np.stack([row[at] for row, at in zip(value, places[spec.name], strict=True)])
        return cls(dict(inputs), kept, places, source_sha256)

    def of(self, name: str, value: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The part of a model's output that the file holds a value for.

        Args:
            name: The output.
            value: What a model gave for the texts `rows`, [n, ...].
            rows: Numbers of the texts, int [n].
        """
        if name not in self.places:
            return value
        return np.stack([one[self.places[name][row]] for one, row in zip(value, rows, strict=True)])

    def write(self, directory: str | os.PathLike[str]) -> None:
        """Write `reference.npz`."""
        arrays: dict[str, np.ndarray] = {"source_sha256": np.array(self.source_sha256)}
        for group in ("inputs", "outputs", "places"):
            arrays |= {f"{group}/{name}": value for name, value in getattr(self, group).items()}
        # numpy 1.26 has no allow_pickle here and would store it as one more array.
        np.savez(Path(directory) / REFERENCE, **arrays)  # type: ignore[arg-type]

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> Reference:
        """Read `reference.npz`.

        Raises:
            FileNotFoundError: The directory holds none, as those of older versions do.
            ArtifactError: It is damaged.
        """
        path = Path(directory) / REFERENCE
        if not path.is_file():
            raise FileNotFoundError(f"{directory} holds no {REFERENCE}; export it again with this version")
        groups: dict[str, dict[str, np.ndarray]] = {"inputs": {}, "outputs": {}, "places": {}}
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
                    raise ValueError("it unpacks to more than any such file")
            with np.load(path, allow_pickle=False) as arrays:
                source = str(arrays["source_sha256"])
                for key in arrays.files:
                    group, _, name = key.partition("/")
                    if group in groups:
                        value = arrays[key]
                        if not isinstance(value, np.ndarray):
                            raise ValueError(f"{key} is no array")
                        groups[group][name] = value
            reference = cls(groups["inputs"], groups["outputs"], groups["places"], source)
            reference._check()
        except (
            ValueError,
            KeyError,
            EOFError,
            OSError,
            RuntimeError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise ArtifactError(
                f"{path} cannot be read ({error})", "copy or export the directory again"
            ) from error
        return reference

    def _check(self) -> None:
        ids = self.inputs["input_word_ids"]
        if ids.ndim != 2 or not len(ids) or self.inputs["input_mask"].shape != ids.shape or not self.outputs:
            raise ValueError("no ids [N, S] with their mask and outputs")
        arrays = [*self.inputs.values(), *self.outputs.values(), *self.places.values()]
        if any(len(value) != len(ids) if value.ndim else True for value in arrays):
            raise ValueError("its arrays are of different numbers of texts")
        if any(value.dtype.kind != "i" for value in (*self.inputs.values(), *self.places.values())):
            raise ValueError("inputs and places must be integers")
        if any(value.dtype.kind != "f" for value in self.outputs.values()):
            raise ValueError("outputs must be floating-point numbers")
        if not self.places.keys() <= self.outputs.keys():
            raise ValueError("places of an output that it does not hold")
