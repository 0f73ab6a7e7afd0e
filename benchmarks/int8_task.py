"""A fine-tuned checkpoint in fp32, fp16 and int8: its task's metrics on the same examples, in the simulator.

    python benchmarks/int8_task.py CHECKPOINT --task classify|pair|regression|ner --dev FILE
    python benchmarks/int8_task.py CHECKPOINT --task classify --train FILE  # what `train` held out of it

Both precisions are exported as anybody would, calibrated on our own sentences; the examples take no part.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from tfbert_npu import BertTokenizer, export_rknn, load_npu
from tfbert_npu.train.data_options import DataOptions
from tfbert_npu.train.fine_tuning import hold_out
from tfbert_npu.train.tasks import make_task


def main() -> None:
    """Measure and print one line for each precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--task", required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dev", type=Path)
    source.add_argument("--train", type=Path)
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--length", type=int, default=64)
    arguments = parser.parse_args()

    tokenizer = BertTokenizer.from_pretrained(arguments.checkpoint)
    names = json.loads((arguments.checkpoint / "config.json").read_text(encoding="utf-8"))["id2label"]
    labels = tuple(names[str(index)] for index in range(len(names)))
    data = DataOptions(arguments.train or arguments.dev, label_column=arguments.label_column, labels=labels)
    task = make_task(arguments.task, data, tokenizer, arguments.length)
    task.set_labels(())
    examples = list(task.read(data.train))
    if arguments.train:
        groups = [task.group_of(example) for example in examples]
        examples = hold_out(examples, groups, data.dev_fraction, data.seed)[1]
    examples = examples[: arguments.rows]
    print(f"{len(examples)} examples")
    with tempfile.TemporaryDirectory() as folder:
        shapes = ((1, arguments.length),)
        cycles = {}
        for precision in ("fp16", "w8a8"):
            manifest = export_rknn(
                arguments.checkpoint, Path(folder) / precision, shapes=shapes, precision=precision
            )
            cycles[precision] = sum(cost["cycles"] for cost in manifest.cost.values())
        for name, directory, backend in (
            ("fp32", "fp16", "onnx"),
            ("fp16", "fp16", "simulator"),
            ("w8a8", "w8a8", "simulator"),
        ):
            with load_npu(Path(folder) / directory, backend) as model:
                metrics = task.evaluate(model, examples)
            figures = "  ".join(f"{metric} {value:.4f}" for metric, value in metrics.items())
            share = "" if name == "fp32" else f"  cycles {cycles[name] / cycles['fp16']:.3f}"
            print(f"{name}  {figures}{share}", flush=True)


if __name__ == "__main__":
    main()
