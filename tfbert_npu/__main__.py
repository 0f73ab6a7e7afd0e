"""`python -m tfbert_npu` is the `tfbert-npu` command."""

from tfbert_npu.cli import main

main()
