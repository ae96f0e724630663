"""Every name of NVIDIA's Python libraries that this package uses, by class, and which library has to have it."""

_RUNTIME = {
    "Runtime": "deserialize_cuda_engine engine_host_code_allowed",
    "ICudaEngine": "create_execution_context device_memory_size_v2 get_device_memory_size_for_profile_v2 "
    "get_tensor_dtype get_tensor_format_desc get_tensor_location get_tensor_mode get_tensor_name "
    "get_tensor_profile_shape get_tensor_shape num_io_tensors num_optimization_profiles",
    "IExecutionContext": "execute_async_v3 get_tensor_shape set_device_memory set_input_shape "
    "set_optimization_profile_async set_tensor_address",
    "ILogger": "log",
    "TensorIOMode": "INPUT",
    "TensorLocation": "DEVICE",
    "ExecutionContextAllocationStrategy": "USER_MANAGED",
    "DataType": "FLOAT HALF INT8 INT32 INT64 UINT8 BOOL",
}
_RTX_RUNTIME = {
    "ICudaEngine": "create_runtime_config",
    "IRuntimeConfig": "create_runtime_cache cuda_graph_strategy dynamic_shapes_kernel_specialization_strategy "
    "set_runtime_cache",
    "IRuntimeCache": "deserialize serialize",
    "CudaGraphStrategy": "WHOLE_GRAPH_CAPTURE DISABLED",
    "DynamicShapesKernelSpecializationStrategy": "EAGER LAZY NONE",
}
_BUILDER = {
    "Builder": "build_serialized_network create_builder_config create_network create_optimization_profile",
    "OnnxParser": "get_error num_errors parse",
    "ParserError": "code desc node_name node_operator",
    "INetworkDefinition": "get_input",
    "ITensor": "shape",
    "IOptimizationProfile": "set_shape",
    "IBuilderConfig": "add_optimization_profile builder_optimization_level clear_flag profiling_verbosity "
    "progress_monitor set_flag set_memory_pool_limit",
    "BuilderFlag": "TF32",
    "NetworkDefinitionCreationFlag": "STRONGLY_TYPED",
    "ProfilingVerbosity": "DETAILED",
    "MemoryPoolType": "WORKSPACE",
    "IProgressMonitor": "phase_finish phase_start step_complete",
    "ICudaEngine": "create_engine_inspector",
    "EngineInspector": "get_engine_information",
    "LayerInformationFormat": "JSON",
}
_TENSORRT_BUILDER = {
    "IBuilderConfig": "create_timing_cache get_timing_cache hardware_compatibility_level set_timing_cache",
    "ITimingCache": "serialize",
    "BuilderFlag": "VERSION_COMPATIBLE",
    "HardwareCompatibilityLevel": "AMPERE_PLUS",
}
_RTX_BUILDER = {
    "IBuilderConfig": "num_compute_capabilities set_compute_capability",
    "ComputeCapability": "SM75 SM80 SM86 SM89 SM120 SM121",
}

# By the name of the module.
_NEEDED = {
    "tensorrt": (_RUNTIME, _BUILDER, _TENSORRT_BUILDER),
    "tensorrt_lean": (_RUNTIME,),
    "tensorrt_rtx": (_RUNTIME, _RTX_RUNTIME, _BUILDER, _RTX_BUILDER),
}


def needed(module):
    """The names that a module has to have, each with its class: `ICudaEngine.get_tensor_name`."""
    return {f"{owner}.{name}" for part in _NEEDED[module] for owner, names in part.items() for name in names.split()}


ALL = {name for module in _NEEDED for name in needed(module)}
