"""The structures of the C interface, as the wheel's `rknnlite.api.rknn_runtime` declares them."""

from __future__ import annotations

import ctypes
from ctypes import c_byte, c_char, c_float, c_int, c_long, c_ubyte, c_uint, c_ulong, c_void_p

MAX_DIMS, MAX_NAME, MAX_SHAPES = 16, 256, 512

QUERY_IN_OUT_NUM, QUERY_INPUT_ATTR, QUERY_OUTPUT_ATTR = 0, 1, 2
QUERY_PERF_DETAIL, QUERY_PERF_RUN = 3, 4
QUERY_SDK_VERSION, QUERY_CUSTOM_STRING, QUERY_INPUT_DYNAMIC_RANGE = 5, 7, 13
QUERY_CURRENT_INPUT_ATTR, QUERY_CURRENT_OUTPUT_ATTR = 14, 15

COLLECT_PERFORMANCE = 8  # flag of rknn_init

# rknn_tensor_type
TYPES = {0: "float32", 1: "float16", 2: "int8", 3: "uint8", 4: "int16", 5: "uint16", 6: "int32", 8: "int64"}
NUMBERS = {name: number for number, name in TYPES.items()}


class InOutNum(ctypes.Structure):
    _fields_ = [("n_input", c_uint), ("n_output", c_uint)]


class PerfDetail(ctypes.Structure):
    _fields_ = [("perf_data", c_void_p), ("data_len", c_ulong)]


class PerfRun(ctypes.Structure):
    _fields_ = [("run_duration", c_long)]


class SdkVersion(ctypes.Structure):
    _fields_ = [("api_version", c_char * MAX_NAME), ("drv_version", c_char * MAX_NAME)]


class TensorAttr(ctypes.Structure):
    _fields_ = [
        ("index", c_uint),
        ("n_dims", c_uint),
        ("dims", c_uint * MAX_DIMS),
        ("name", c_char * MAX_NAME),
        ("n_elems", c_uint),
        ("size", c_uint),
        ("fmt", c_int),
        ("type", c_int),
        ("qnt_type", c_int),
        ("fl", c_byte),
        ("zp", c_uint),
        ("scale", c_float),
        ("w_stride", c_uint),
        ("stride_with_stride", c_uint),
        ("pass_through", c_ubyte),
        ("h_stride", c_uint),
    ]


class InputRange(ctypes.Structure):
    _fields_ = [
        ("index", c_uint),
        ("shape_number", c_uint),
        ("fmt", c_int),
        ("name", c_char * MAX_NAME),
        ("dyn_range", (c_uint * MAX_DIMS) * MAX_SHAPES),
        ("n_dims", c_uint),
    ]


class Input(ctypes.Structure):
    _fields_ = [
        ("index", c_uint),
        ("buf", c_void_p),
        ("size", c_uint),
        ("pass_through", c_ubyte),
        ("type", c_int),
        ("fmt", c_int),
    ]


class Output(ctypes.Structure):
    _fields_ = [
        ("want_float", c_ubyte),
        ("is_prealloc", c_ubyte),
        ("index", c_uint),
        ("buf", c_void_p),
        ("size", c_uint),
    ]


Context = c_ulong
