"""Layer tables as builders log them: lines of TensorRT-RTX 1.7 as they were, and of TensorRT 10 in its form."""

WORDS = {"int8": "Int8", "fp16": "Half", "fp32": "Float", "uint8": "UInt8", "int32": "Int32"}


def rtx_tensor(name, kind, shape):
    strides = f"Strides: [{shape}], StrideOrder: [3,0,2,1]"
    words = f"Datatype: {WORDS.get(kind, kind)}, Format: (NHWC) Channel major format"
    return f"{{ Name: {name}, Dimensions: [{shape}], {strides}, {words} }}"


def trt_tensor(name, kind, shape):
    return f"{{ Name: {name}, Location: Device, Dimensions: [{shape}], Format/Datatype: {WORDS.get(kind, kind)} }}"


def tensors(write, each):
    """A list of tensors; each is "name type sizes"."""
    listed = ", ".join(write(*text.rsplit(" ", 2)) for text in each)
    return f"[ {listed}]" if listed else "[]"


def rtx_layer(name, kind, reads, writes, nodes=(), kernel="__myelin_CASK_STUB", constants=()):
    metadata = "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)
    lists = [tensors(rtx_tensor, each) for each in (reads, constants, writes)]
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: {lists[0]}, Constants: {lists[1]}, Outputs: {lists[2]}, "
        f"TacticName: {kernel}, StreamId: 0, Metadata: {metadata}"
    )


def trt_layer(name, kind, reads, writes, nodes=(), kernel="", parameters=""):
    metadata = "\x1e".join(f"[ONNX Layer: {node}]" for node in nodes)
    lists = [tensors(trt_tensor, each) for each in (reads, writes)]
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: {lists[0]}, Outputs: {lists[1]}{parameters}"
        f"{f', TacticName: {kernel}' if kernel else ''}, TacticValue: 0x0000000000000000, StreamId: 0, "
        f"Metadata: {metadata}"
    )


def table(*layers, end="I/O Tensors:\n Name: image, IOMode: Input, DataType: UInt8"):
    return "\n".join(("Layers:", *layers, "", end))


# A quantised convolution whose scales are by channel, and the kernel that does the rest; then a pool.
RTX = table(
    rtx_layer("__mye2693_0_myl0_0", "shape_call", (), (), kernel=""),
    rtx_layer(
        "conv1_2_myl0_4",
        "correlation",
        ["__mye8997conv1_2/Conv_before_bias.1_110_myl0 int8 -1,64,-1,-1"],
        ["__myln_k_arg__bb1_111_myl0 fp32 -1,64,-1,-1"],
        ["conv1_2", "conv1_1/Relu/DequantizeLinear", "conv1_2.weight/DequantizeLinear"],
        constants=["__mye12382dconst_myl0 int8 64,64,3,3", "__mye12387dconst_myl0 fp32 1,64,1,1"],
    ),
    rtx_layer(
        "__myl_MulCastAddReluMulMinMaxRounCast_myl0_5",
        "kgen",
        ["__myln_k_arg__bb1_111_myl0 fp32 -1,64,-1,-1"],
        ["pool1/MaxPool/QuantizeLinear.1_112_myl0 int8 -1,64,-1,-1"],
        ["conv1_2/Relu", "conv1_2", "pool1/MaxPool/QuantizeLinear"],
        "__myl_MulCastAddReluMulMinMaxRounCast_0x5a1536fd41fbe0fd8d7595142304267a_vec",
        ["__mye20069_const-lit-in_myl0 fp16 1"],
    ),
    rtx_layer(
        "__mye8902_pooling_myl0_6",
        "maxpool",
        ["pool1/MaxPool/QuantizeLinear.1_112_myl0 int8 -1,64,-1,-1"],
        ["__mye9043conv2_1/Conv_before_bias.1_113_myl0 int8 -1,64,-1,-1"],
        ["pool1/MaxPool"],
    ),
)

_WIDE = "Thirty-two wide channel vectorized row major Int8 format"
TENSORRT = table(
    trt_layer(
        "Reformatting CopyNode for Input Tensor 0 to conv1_1 + conv1_1/Relu",
        "Reformat",
        ["image fp16 1,3,64,64"],
        ["Reformatted Input Tensor 0 to conv1_1 + conv1_1/Relu fp16 1,3,64,64"],
        parameters=", ParameterType: Reformat, Origin: REFORMAT",
    ),
    trt_layer(
        "conv1_1 + conv1_1/Relu",
        "CaskConvolution",
        ["Reformatted Input Tensor 0 to conv1_1 + conv1_1/Relu fp16 1,3,64,64"],
        ["conv1_1/Relu fp16 1,64,64,64"],
        ["conv1_1", "conv1_1/Relu"],
        "sm80_xmma_fprop_implicit_gemm_indexed_wo_smem_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x32x64",
        ', ParameterType: Convolution, Kernel: [3,3], Stride: [1,1], Weights: {"Type": "Half", "Count": 1728}, '
        'Bias: {"Type": "Half", "Count": 64}, HasReLU: 1, Activation: RELU',
    ),
    trt_layer(
        "conv1_1/Relu/QuantizeLinear",
        "Reformat",
        ["conv1_1/Relu fp16 1,64,64,64"],
        ["conv1_1/Relu/QuantizeLinear int8 1,64,64,64"],
        parameters=", ParameterType: Reformat, Origin: QDQ",
    ),
    # The words of earlier versions, with spaces in them.
    trt_layer(
        "conv1_2",
        "CaskConvolution",
        ["conv1_1/Relu/QuantizeLinear int8 1,64,64,64"],
        ["b int8 1,64,64,64"],
        ["conv1_2"],
    ).replace("Format/Datatype: Int8", f"Format/Datatype: {_WIDE}"),
    end="Bindings:\nimage\nlabels",
)
