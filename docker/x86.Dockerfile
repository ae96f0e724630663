# fcn-deploy on x86-64 with an NVIDIA GPU: NVIDIA's TensorRT, CUDA 13.0, Python 3.12. From the root of a checkout:
#   docker build -f docker/x86.Dockerfile -t fcn-deploy .
#   docker run --rm --gpus all -v "$PWD:/data" fcn-deploy doctor
# For a driver of CUDA 12: --build-arg BASE=nvcr.io/nvidia/tensorrt:25.03-py3 --build-arg EXTRAS=host,cpu,cuda12
ARG BASE=nvcr.io/nvidia/tensorrt:25.08-py3
FROM ${BASE}

# host and cpu calibrate and build engines; cli,cuda13 runs them.
ARG EXTRAS=host,cpu,cuda13

RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*

# The image brings TensorRT for the system's Python: the environment has to see the packages of the system.
RUN python3 -m venv --system-site-packages /opt/fcn-deploy
ENV PATH="/opt/fcn-deploy/bin:${PATH}"

RUN python -c "import importlib.util, sys; importlib.util.find_spec('tensorrt') \
    or sys.exit('the base image has no TensorRT for Python, package tensorrt')"

COPY pyproject.toml README.md LICENSE /tmp/fcn-deploy/
COPY fcn_deploy /tmp/fcn-deploy/fcn_deploy
# That index has PyTorch without CUDA, which saves some 3 GB: it only exports and verifies here, on the CPU.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu "/tmp/fcn-deploy[${EXTRAS}]"

RUN useradd --create-home --uid 10001 deploy
USER deploy
WORKDIR /data
ENTRYPOINT ["fcn-deploy"]
CMD ["doctor"]
