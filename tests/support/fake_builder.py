"""A fake TensorRT: answers the builder's calls and writes down what was asked of it.

The same calls are made to the real TensorRT-RTX in tests/engines/tensorrt/test_builder.py. This fake stands for what
RTX does not have: versions 10 and 11, a GPU, a timing cache, hardware and version compatibility.
"""

import enum
import importlib.machinery
from types import ModuleType

ERROR_WITHOUT_GPU = "the fake has no GPU"


def fake_tensorrt(version, inspected="{}"):
    """Returns a module `tensorrt` of a version, and the list of what it is asked for.

    Its engines' inspector says `inspected`; None for engines that it cannot load.
    """
    asked = []
    module = ModuleType("tensorrt")
    module.__version__ = version
    module.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None, origin="a fake")
    flags = ["TF32", "VERSION_COMPATIBLE"] + ([] if version.startswith("11") else ["FP16", "INT8", "BF16", "FP8"])
    module.BuilderFlag = enum.IntEnum("BuilderFlag", flags, start=0)
    module.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
    module.ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED"])
    module.MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
    module.HardwareCompatibilityLevel = enum.Enum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"])

    class ILogger:
        Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

    class Tensor:
        shape = (-1, -1, -1, 3)

    class Network:
        def get_input(self, index):
            return Tensor()

    class Cache:
        def __init__(self, data):
            self.data = data

        def serialize(self):
            return self.data + b"+timings"

    class Profile:
        def set_shape(self, name, *shapes):
            asked.append(("profile", name, *shapes))

    class Config:
        def __setattr__(self, name, value):
            if name not in ("progress_monitor", "cache"):
                asked.append((name, value))
            super().__setattr__(name, value)

        def clear_flag(self, flag):
            asked.append(("clear", flag.name))

        def set_flag(self, flag):
            asked.append(("set", flag.name))

        def set_memory_pool_limit(self, pool, size):
            asked.append((pool.name, size))

        def create_timing_cache(self, data):
            return Cache(data)

        def set_timing_cache(self, cache, ignore_mismatch):
            self.cache = cache
            return not ignore_mismatch and cache.data != b"of another GPU"

        def get_timing_cache(self):
            return self.cache

        def add_optimization_profile(self, profile):
            return 0

    class Builder:
        def __init__(self, logger):
            self.logger = logger

        def create_network(self, flags):
            asked.append(("network", flags))
            return Network()

        def create_builder_config(self):
            return Config()

        def create_optimization_profile(self):
            return Profile()

        def build_serialized_network(self, network, config):
            config.progress_monitor.phase_start("Building engine", None, 2)
            for step in range(2):
                if not config.progress_monitor.step_complete("Building engine", step):
                    return None
            config.progress_monitor.phase_finish("Building engine")
            self.logger.log(ILogger.Severity.WARNING, "a fake is as fast as it is wrong")
            return b"a plan"

    class OnnxParser:
        num_errors = 0

        def __init__(self, network, logger):
            pass

        def parse(self, data):
            return True

    class Inspector:
        def get_engine_information(self, form):
            asked.append(("inspect", form.name))
            return inspected

    class Engine:
        def create_engine_inspector(self):
            return Inspector()

    class Runtime:
        def __init__(self, logger):
            self.logger = logger

        def deserialize_cuda_engine(self, plan):
            asked.append(("load", plan))
            if inspected is None:
                self.logger.log(ILogger.Severity.ERROR, "not for this GPU")
                return None
            return Engine()

    module.LayerInformationFormat = enum.Enum("LayerInformationFormat", ["ONELINE", "JSON"])
    for each in (ILogger, Builder, OnnxParser, Runtime):
        setattr(module, each.__name__, each)
    module.IProgressMonitor = type("IProgressMonitor", (), {})
    return module, asked
