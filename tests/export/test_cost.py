"""The compiler's report, from rows that rknn-toolkit2 2.5.0 printed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tfbert_npu.platforms import platform_named
from tfbert_npu.rknn.cost import CostReportError, Operator, cost_at, parse_costs

HEAD = "D RKNN: [01:30:39.402] ID   OpType  DataType Target InputShape  OutputShape  {} RW(KB)  FullName \n"
PLAIN = HEAD.format("Cycles(DDR/NPU/Total)")
RULE = "D RKNN: [01:30:39.402] -----------------------------------------------------------------\n"
ROWS = """\
D RKNN: [01:30:39.402] 0    InputOperator      INT32    CPU    \\                                        (1,128)                0/0/0                    0            InputOperator:input_word_ids
D RKNN: [01:30:39.402] 1    InputOperator      INT32    CPU    \\                                        (1,128)                0/0/0                    0            InputOperator:input_mask
D RKNN: [01:30:39.402] 2    Gather             FLOAT16  CPU    (30522,384),(1,128)                      (1,128,384)            0/0/0                    22892        Gather:embeddings/words/Gather
D RKNN: [01:30:39.402] 3    Reshape            INT32    CPU    (1,128),(4)                              (1,128,1,1)            0/0/0                    0            Reshape:input_mask_rs
D RKNN: [01:30:39.402] 4    Conv               FLOAT16  NPU    (1,384,1,128),(384,384,1,1),(384)        (1,384,1,128)          20845/36864/36864        385          Conv:encoder.layer.0.attention.self.value/MatMul#2
D RKNN: [01:30:39.402] 5    ConvTanh           FLOAT16  NPU    (1,384,1,1),(384,384,1,1)                (1,384,1,1)            12533/4608/12533         288          Conv:pooler.dense/MatMul#2
D RKNN: [01:30:39.402] 6    OutputOperator     FLOAT16  CPU    (1,384)                                  \\                      0/0/0                    96           OutputOperator:pooled_output
D RKNN: [01:30:39.402] ----------------------------------------------------------
D RKNN: [01:30:39.449] Total Internal Memory Size: 1536.5KB
D RKNN: [01:30:39.449] Total Weight Memory Size: 21138.3KB
"""
SPARSE = HEAD.format("Cycles(DDR/NPU/Total)    SparseRatio") + RULE
SPARSE += """\
D RKNN: [01:57:02.402] 0    InputOperator      FLOAT16  CPU    \\                                        (4,256,384)            0/0/0                                 0            InputOperator:embeddings
D RKNN: [01:57:02.402] 1    Conv               INT8     NPU    (1,384,1,128),(384,384,1,1),(384)        (1,384,1,128)          66050/36864/66050        0%           385          Conv:encoder.layer.0.attention.self.value/MatMul#2
D RKNN: [01:57:02.402] 2    exSoftmax13        FLOAT16  CPU    (12,128,128)                             (12,128,128)           0/0/0                                 768          exSoftmax13:encoder.layer.0.attention.self.weights
"""


def test_reads_every_row_and_the_memory():
    (cost,) = parse_costs("something before\n" + PLAIN + RULE + ROWS + "I rknn building done.\n")
    summary = cost.summary(platform_named("rk3588"))
    assert summary["cycles"] == 36864 + 12533
    assert summary["npu_cycles"] == 36864 + 4608
    assert (summary["npu_ops"], summary["cpu_ops"]) == (2, 5)
    assert summary["mb_moved"] == pytest.approx((22892 + 385 + 288) / 1024, abs=1e-3)
    assert summary["macs"] == 384 * 384 * 128 + 384 * 384
    assert summary["utilisation"] == pytest.approx((384 * 384 * 129 / 512) / 49397, abs=1e-4)
    assert summary["internal_mb"] == pytest.approx(1536.5 / 1024, abs=1e-3)
    assert cost.unexpected_on_cpu == ()
    assert [row["name"] for row in cost.rows()][4] == "encoder.layer.0.attention.self.value/MatMul#2"


def test_int8_is_held_against_the_int8_rate_and_lost_operators_are_named():
    (cost,) = parse_costs(SPARSE)
    assert cost.summary(platform_named("rk3588"))["utilisation"] == pytest.approx(18432 / 66050, abs=1e-4)
    assert [operator.kind for operator in cost.unexpected_on_cpu] == ["exSoftmax13"]


def test_a_reshape_of_a_handful_of_numbers_is_harmless_and_a_large_one_is_not():
    """Every classifier has one behind its logits; strict refused them all."""
    values = {"dtype": "FLOAT16", "target": "CPU", "inputs": "(1,3,1,1),(2)", "outputs": "(1,3)"}
    cycles = {"ddr_cycles": 0, "npu_cycles": 0, "cycles": 0}
    small = Operator(kind="Reshape", **values, **cycles, kib=0, name="logits_mm_tp_rs")
    assert not small.unexpected_on_cpu
    assert replace(small, kib=1).unexpected_on_cpu
    assert replace(small, kind="exSoftmax13").unexpected_on_cpu


def test_each_shape_has_its_table():
    costs = parse_costs(PLAIN + RULE + ROWS + SPARSE)
    assert cost_at(costs, (1, 128)) is costs[0]
    assert cost_at(costs, (4, 256)) is costs[1]
    with pytest.raises(CostReportError, match="no table for 1x12"):
        cost_at(costs, (1, 12))  # not the beginning of 1x128


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("E RKNN: [01:30:39.402] build failed\n", "printed no table"),
        (PLAIN + RULE, "no rows"),
        (PLAIN + RULE + "".join(ROWS.splitlines(keepends=True)[1:]), "out of order"),
    ],
)
def test_a_log_of_another_form_is_an_error(log, message):
    with pytest.raises(CostReportError, match=message):
        parse_costs(log)
