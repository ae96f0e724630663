"""`deploy` for NVIDIA's libraries: typed graphs and what PyTorch gives become a bundle, for a device with a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fcn_deploy.artifacts.conditions import Conditions
from fcn_deploy.artifacts.measures import GroundTruth
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.recommendation import Recommendation
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.artifacts.summary import EngineSummary, Summary
from fcn_deploy.bundle.expected import Expected, images_that_fit, save_expected
from fcn_deploy.bundle.folder import CheckedBundle, write_bundle
from fcn_deploy.bundle.manifest import EXPECTED, RANGES, Bundle, BundledGraph, graph_file
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.images import stated_size
from fcn_deploy.engines.engine import Engine, source_of
from fcn_deploy.evaluation.latency import BenchmarkConfig
from fcn_deploy.files import temporary_folder
from fcn_deploy.installation import command_elsewhere
from fcn_deploy.progress import Progress
from fcn_deploy.reporting.gallery import Kept, WorstImages
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.options import RuntimeOptions
from fcn_deploy.runtime.tensorrt.flavor import find_flavor
from fcn_deploy.workflows.deploy_config import DeployConfig
from fcn_deploy.workflows.device import Target
from fcn_deploy.workflows.finishing import device_summary, require_device_gates
from fcn_deploy.workflows.image_profiles import profiles_for
from fcn_deploy.workflows.on_device import BuiltOnDevice, Run, build_on_device, measure_on_device, try_builder
from fcn_deploy.workflows.origins import versions
from fcn_deploy.workflows.publishing import BUNDLE, OutputFiles, publish
from fcn_deploy.workflows.references import PYTORCH, NetCode, opened
from fcn_deploy.workflows.samples import TruthOptions, samples
from fcn_deploy.workflows.truth import with_ignored

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel

# Which versions a bundle states.
_MADE_WITH = ("numpy", "onnx", "onnxruntime", "torch")


@dataclass(frozen=True, eq=False)
class HeldAgainst:
    """What the engines of a deployment are held against: PyTorch, on images.

    Attributes:
        checkpoint: The net's weights.
        code: What makes a custom net.
        runtime: How PyTorch runs.
        images: The images.
        truth: Their ground truth, or None.
        counted: What the ground truth says, in which each ignored value counts for itself; None without labels.
    """

    checkpoint: Path
    code: NetCode
    runtime: RuntimeOptions
    images: ImageFolder
    truth: TruthOptions | None
    counted: GroundTruth | None

    @contextmanager
    def opened(self, net: ExportedModel, progress: Progress) -> Iterator[Segmenter]:
        """Opens PyTorch's net, with the spec of the exported model."""
        with opened([net, f"{PYTORCH}{self.checkpoint}"], self.runtime, self.code, progress) as (_, reference):
            yield reference

    def ignore_index(self, net: ExportedModel) -> int | None:
        """Returns the value of the ground truth that does not count."""
        return None if self.truth is None else self.truth.reader(net.spec).ignore_index


@dataclass(frozen=True, eq=False)
class Simulated:
    """A deployment for NVIDIA's libraries, as far as a machine without a GPU comes.

    Attributes:
        net: The exported model.
        ranges: Of its tensors.
        engines: Simulations of the engines, by precision.
        config: What the user asked for, with the profiles.
        summary: What was measured of the simulations.
        kept: The images that each engine agrees on the least with PyTorch, by precision.
        report: Whether a report is written.
    """

    net: ExportedModel
    ranges: Ranges
    engines: Mapping[str, Engine]
    config: DeployConfig
    summary: Summary
    kept: Mapping[str, Sequence[Kept]]
    report: bool

    def graphs(self) -> dict[str, bytes]:
        """Returns the typed graphs that the simulations stand for, made from the same options, by precision."""
        from fcn_deploy.engines.tensorrt.typed_graph import typed_graph

        graphs = {}
        for precision, engine in self.engines.items():
            build = self.config.build_config(engine.sidecar.precision.requested)  # type: ignore[arg-type]  # by name
            if precision == "int8":  # `auto` chose the method
                build = replace(build, method=engine.sidecar.precision.method or build.method)
            flavor = find_flavor(self.config.backend)
            graphs[precision] = typed_graph(self.net, build, self.ranges, flavor=flavor).data
        return graphs

    def manifest(self, images: int, ignore_index: int | None) -> Bundle:
        """Returns what `bundle.json` says, without the files.

        Args:
            images: The number of images with expected results.
            ignore_index: The value of ground truth that does not count.
        """
        graphs = {
            engine.precision: BundledGraph(
                self.engines[engine.precision].sidecar.precision,
                tuple(map(str, self.config.criteria.get(engine.precision, ()))),
                engine,
            )
            for engine in self.summary.engines
        }
        return Bundle(
            backend=self.config.backend,
            model=self.summary.model,
            export_error=self.summary.export_error,
            io=self.config.io,
            spec=self.net.spec,
            source=source_of(self.net, self.ranges),
            profiles=tuple(profile.to_json() for profile in self.config.profiles),
            graphs=graphs,
            images=images,
            ignore_index=ignore_index,
            calibration=self.summary.calibration,
            made_with=versions(_MADE_WITH),
        )


def with_profiles(config: DeployConfig, judged: ImageFolder, observed: ImageFolder, progress: Progress) -> DeployConfig:
    """Returns the options of a deployment with the shapes that its engines take, which are told to `progress`.

    Raises:
        InputError: An image to verify on fits none of them.
    """
    profiles, origin = profiles_for(config.profiles, judged, observed)
    for profile in profiles:
        progress.stage(f"profile: {profile}, {origin}")
    return replace(config, profiles=profiles)


def bundle_of(
    folder: Path, made: Simulated, against: HeldAgainst, target: Target | None, progress: Progress
) -> CheckedBundle:
    """Writes the bundle of a deployment.

    If there is no GPU here, but a library that builds without one, it is tried on the graphs first: what it refuses is
    better known before the device gets the bundle.

    Args:
        folder: Where it goes; a bundle that is there is replaced.
        made: What goes into it.
        against: What the engines will be held against on the device: some of these images.
        target: The GPU and the library of this machine; None if it has no such GPU.
        progress: Told how far it is.

    Raises:
        InputError: It cannot be written, an image cannot be read, or the library refuses a graph.
    """
    graphs, examples = made.graphs(), _expected(made, against, progress)
    manifest = made.manifest(len(examples), against.ignore_index(made.net))
    flavor = find_flavor(manifest.backend)
    if target is None and flavor.builds_without_gpu and flavor.installed:
        try_builder(manifest, graphs, flavor, progress)
    contents = {graph_file(precision): graph for precision, graph in graphs.items()}
    contents[EXPECTED] = save_expected(examples, made.config.io)
    contents[RANGES] = made.ranges.dumps()
    return write_bundle(folder, manifest, contents)


def _expected(made: Simulated, against: HeldAgainst, progress: Progress) -> list[Expected]:
    """Returns what PyTorch gives for some of the images, evenly spread over all."""
    is_image = made.config.io == "image"
    images = _chosen(against, made.net.spec, None if is_image else made.net.spec.channels)
    reader = None if against.truth is None else against.truth.reader(made.net.spec)
    examples = []
    with against.opened(made.net, progress) as reference:
        for image, truth in samples(images, against.truth, "recording what PyTorch gives", reader, progress=progress):
            result = reference(image) if is_image else reference.logits(image)
            examples.append(Expected(image, np.ascontiguousarray(result), truth))
    return examples


def _chosen(against: HeldAgainst, spec: ModelSpec, channels: int | None) -> ImageFolder:
    """Returns the images that go into a bundle; with ground truth, one of them at least has a pixel that counts.

    Args:
        against: The images, and their ground truth.
        spec: The net's.
        channels: Of the logits that go with each; None for labels.
    """
    images, truth = against.images, against.truth
    sizes = [images.size or stated_size(path) or (1, 1) for path in images.paths]
    chosen = images_that_fit(sizes, channels)
    if truth is not None:
        files, reader = truth.files(images), truth.reader(spec)

        def counts(index: int) -> bool:
            return bool((reader.read(files[index]) != reader.ignore_index).any())

        if not any(map(counts, chosen)):  # all others are read only then, which takes long
            counting = [index for index in range(len(sizes)) if counts(index)]
            chosen = [counting[index] for index in images_that_fit([sizes[index] for index in counting], channels)]
    return replace(images, paths=tuple(images.paths[index] for index in chosen))


def for_gpu(
    made: Simulated,
    against: HeldAgainst,
    files: OutputFiles,
    target: Target | None,
    timing: BenchmarkConfig,
    conditions: Conditions,
    progress: Progress,
) -> Summary:
    """Completes a deployment for NVIDIA's libraries whose simulations met their gates.

    With a GPU the engines are built, verified and timed here, and written; without, the bundle for the device is.

    Args:
        made: What the simulations gave.
        against: What engines are held against.
        files: Where everything goes.
        target: The GPU and the library of this machine; None if it has no such GPU.
        timing: How long times are measured.
        conditions: That they are measured under.
        progress: Told of each step.

    Returns:
        The summary that was written.

    Raises:
        GateError: An engine missed its gate on the GPU, and was not written. Its `report` is the summary.
        FcnDeployError: As for `finish`.
    """
    if target is None:
        bundle = bundle_of(files.bundle, made, against, target, progress)
        summary = replace(made.summary, engines=_of_graphs(made, bundle), ship=_not_run_yet(made.config.backend))
        kept = made.kept if made.report else None
        summary = publish(files, made.net, made.ranges, {}, summary, progress, bundle=True, kept=kept)
        progress.stage(f"wrote {files.bundle}: copy it to the device, and run there: fcn-deploy finish {BUNDLE}")
        flavor = find_flavor(made.config.backend)
        needs = command_elsewhere("cli", flavor.extra)
        if flavor.extra == "tensorrt":  # which is a package of JetPack, and has no wheel for it
            needs += f"; on a Jetson with JetPack 6 in place of that: {command_elsewhere('cli', 'cuda12')}"
        progress.stage(f"the device needs fcn-deploy without its extra host, and: {needs}")
        return summary
    run = Run(target, timing, conditions)
    with temporary_folder() as scratch:
        folder = files.bundle if made.config.bundle else scratch / "bundle"
        bundle = bundle_of(folder, made, against, target, progress)
        built = _built_here(bundle, made, against, run, progress)
    before = made.summary
    summary = replace(
        device_summary(bundle, built, run, (), len(against.images)),
        resumed=before.resumed,
        origin=before.origin,
        layers=before.layers,
    )
    passed = {name: engine for name, engine in built.engines.items() if built.passed(name)}
    kept = built.measured.kept if made.report else None
    summary = publish(
        files,
        made.net,
        made.ranges,
        passed,
        summary,
        progress,
        bundle=made.config.bundle,
        caches=built.caches,
        kept=kept,
    )
    require_device_gates(summary)
    return summary


def _built_here(
    bundle: CheckedBundle, made: Simulated, against: HeldAgainst, run: Run, progress: Progress
) -> BuiltOnDevice:
    """Builds the engines on this machine's GPU, verifies them against PyTorch on all images, and times them."""
    engines = build_on_device(bundle, run.target, progress)
    reader = None if against.truth is None else against.truth.reader(made.net.spec)
    judged = samples(against.images, against.truth, "verifying", reader, progress=progress)
    ignored = None if reader is None else reader.ignore_index
    worst = WorstImages(against.images.names, [*engines], made.net.spec, ignored)
    with against.opened(made.net, progress) as reference:
        built = measure_on_device(bundle, engines, run, reference, judged, progress, worst)
    truth = built.measured.truth
    if truth is None or against.counted is None:
        return built
    return replace(built, measured=replace(built.measured, truth=with_ignored(truth, against.counted)))


def _of_graphs(made: Simulated, bundle: CheckedBundle) -> tuple[EngineSummary, ...]:
    """Returns the results of the simulations under the names and sizes of the graphs that the device gets."""
    entries = bundle.manifest.files
    return tuple(
        replace(
            engine,
            file=f"{bundle.folder.name}/{graph_file(engine.precision)}",
            bytes=entries[graph_file(engine.precision)].bytes,
            sha256=entries[graph_file(engine.precision)].sha256,
        )
        for engine in made.summary.engines
    )


def _not_run_yet(backend: str) -> Recommendation:
    return Recommendation(
        None, f"not known yet which engine to ship: {backend} has not run; fcn-deploy finish tells, on the device"
    )
