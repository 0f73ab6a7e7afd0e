"""Options of export_rknn: what is refused, and what follows from them."""

from __future__ import annotations

import pytest

from tfbert_npu.config import BertConfig
from tfbert_npu.rknn.options import buckets, checked_options

CONFIG = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
DEFAULTS = {
    "target_platform": "rk3588",
    "shapes": ((1, 128),),
    "precision": "fp16",
    "layout": "dynamic",
    "embeddings": "inside",
    "outputs": None,
    "masked_positions": None,
    "optimization_level": 3,
    "single_core": False,
    "compiler": None,
}


def options(**changes):
    return checked_options(CONFIG, **{**DEFAULTS, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_platform": "rk3399"}, "'rk3588', 'rk3588s', 'rk3588s2', 'rk3576'"),
        ({"precision": "int4"}, "'fp16', 'w8a8'"),
        ({"layout": "bucketed"}, "'dynamic', 'static'"),
        ({"embeddings": "gpu"}, "'inside', 'host'"),
        ({"optimization_level": 4}, r"\(0, 1, 2, 3\)"),
        ({"shapes": ()}, "at least one"),
        ({"shapes": ((0, 128),)}, "at least 1, got 0x128"),
        ({"shapes": ((1, 0),)}, "at least 1, got 1x0"),
        ({"shapes": ((1, 513),)}, "max_position_embeddings 512"),
        ({"shapes": ((1, 128), (1, 128))}, "twice"),
        ({"shapes": ((1, 128, 3),)}, "pairs"),
        ({"shapes": ((1, 12.5),)}, "whole numbers"),
        ({"shapes": "1x128"}, "or 'buckets', got '1x128'"),
        (
            {"shapes": "buckets", "precision": "w8a8"},
            "w8a8 files hold one shape each and 7 are wanted.*static",
        ),
        ({"precision": "w8a16"}, "'w8a16' is for rk3562; on rk3588 use fp16 or w8a8"),
        (
            {"precision": "w4a16", "target_platform": "rk3562"},
            "for rk3576; on rk3562 use fp16 or w8a8 or w8a16",
        ),
        ({"precision": "w8a16", "target_platform": "rk3566"}, "for rk3562; on rk3566 use fp16 or w8a8"),
        ({"single_core": True, "target_platform": "rk3576"}, "rk3588 only"),
        ({"masked_positions": 0}, "at least 1"),
    ],
)
def test_refusals_name_what_is_allowed(changes, message):
    with pytest.raises(ValueError, match=message):
        options(**changes)


def test_buckets_go_as_far_as_the_model_does():
    assert options(shapes="buckets").shapes == buckets(CONFIG)
    assert buckets(CONFIG)[-1] == (1, 256)
    short = BertConfig(**{**CONFIG.to_dict(), "max_position_embeddings": 100})
    assert [length for _, length in buckets(short)] == [16, 24, 32, 48, 64]
    static = options(shapes="buckets", precision="w8a8", layout="static")
    assert [name for name, _ in static.files()][-1] == "model_b1_s256.rknn"


@pytest.mark.parametrize("name", ["rk3588s", "rk3588s2"])
def test_variants_of_rk3588_are_compiled_as_rk3588(name):
    assert options(target_platform=name, single_core=True).platform.target == "rk3588"


def test_rv1126b_has_one_core_and_is_compiled_under_its_own_name():
    platform = options(target_platform="rv1126b", precision="w8a8").platform
    assert (platform.target, platform.cores, platform.fuses_attention) == ("rv1126b", 1, True)


def test_files_are_named_as_rk_transformers_names_them():
    shapes = ((4, 256), (1, 128))
    assert options(shapes=shapes).files() == [("model.rknn", ((1, 128), (4, 256)))]
    assert options(shapes=shapes, layout="static").files() == [
        ("model_b1_s128.rknn", ((1, 128),)),
        ("model_b4_s256.rknn", ((4, 256),)),
    ]


@pytest.mark.parametrize(
    ("shapes", "slices"),
    [(((1, 128),), 1), (((1, 16), (1, 32)), 1), (((1, 16), (1, 64)), 2), (((1, 16), (1, 512)), 3)],
)
def test_feed_forward_blocks_are_sliced_only_where_lengths_share_weights(shapes, slices):
    assert options(shapes=shapes).ffn_slices(CONFIG) == slices
    assert options(shapes=shapes, layout="static").ffn_slices(CONFIG) == 1
