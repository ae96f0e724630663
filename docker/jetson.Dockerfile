# fcn-deploy on a Jetson with JetPack 6.2: TensorRT 10.3, CUDA 12.6, Python 3.10. From the root of a checkout:
#   docker build -f docker/jetson.Dockerfile -t fcn-deploy .
#   docker run --rm --runtime nvidia --group-add video -v "$PWD:/data" fcn-deploy doctor
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}

# cli,cuda12 runs engines; host,cpu,cuda12 also calibrates and builds them.
ARG EXTRAS=cli,cuda12

RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*

# TensorRT for Python is a package of the system, and no index has TensorRT 10.3 for this processor: the environment has
# to see the packages of the system.
RUN python3 -m venv --system-site-packages /opt/fcn-deploy
ENV PATH="/opt/fcn-deploy/bin:${PATH}"

# It is looked for and not imported: NVIDIA's container runtime adds libraries that it needs only when a container runs.
RUN python -c "import importlib.util, sys; importlib.util.find_spec('tensorrt') \
    or sys.exit('the base image has no TensorRT for Python, package python3-libnvinfer')"

COPY pyproject.toml README.md LICENSE /tmp/fcn-deploy/
COPY fcn_deploy /tmp/fcn-deploy/fcn_deploy
# That index has PyTorch without CUDA, which saves some 3 GB: it only exports and verifies here, on the CPU.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu "/tmp/fcn-deploy[${EXTRAS}]"

# The group video may use the GPU of a Jetson; `--group-add video` gives it to this user in a container.
RUN useradd --create-home --uid 10001 deploy
USER deploy
WORKDIR /data
ENTRYPOINT ["fcn-deploy"]
CMD ["doctor"]
