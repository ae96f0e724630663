import numpy as np
import pytest
import torch

from fcn_deploy.artifacts.normalization import TORCHVISION
from fcn_deploy.demo import CLASSES, EVALUATION_SEEDS, IGNORE_INDEX, PALETTE, checkpoint_path, make_scene
from fcn_deploy.evaluation.accuracy import class_iou, confusion_matrix, mean_iou, pixel_accuracy
from fcn_deploy.models import load_model, read_checkpoint


@pytest.fixture(scope="module")
def checkpoint():
    return read_checkpoint(checkpoint_path())


def test_it_is_small_enough_to_ship():
    assert 500_000 < checkpoint_path().stat().st_size < 6_000_000


def test_it_says_what_it_is(checkpoint):
    spec = checkpoint.spec
    assert spec is not None
    assert (spec.variant, spec.stride) == (checkpoint.variant, checkpoint.stride) == ("fcn8s", 8)
    assert spec.width == checkpoint.width
    assert spec.num_classes == checkpoint.num_classes == len(CLASSES)
    assert spec.classes == CLASSES
    assert spec.palette == PALETTE
    assert spec.ignore_index == IGNORE_INDEX
    assert spec.normalization == TORCHVISION
    assert not spec.normalization.assumed


def test_its_weights_are_finite(checkpoint):
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.state.values())


def test_it_segments_unseen_scenes(checkpoint):
    model = load_model(checkpoint)
    matrix = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    mean, std = (torch.tensor(values)[:, None, None] for values in (TORCHVISION.mean, TORCHVISION.std))
    for seed in EVALUATION_SEEDS[1000:1008]:
        scene = make_scene(seed)
        image = torch.from_numpy(scene.image).permute(2, 0, 1) * TORCHVISION.scale
        with torch.inference_mode():
            labels = model(((image - mean) / std)[None]).argmax(1)[0].numpy()
        matrix += confusion_matrix(scene.labels, labels, len(CLASSES), IGNORE_INDEX)
    # It has 75 points over a hundred scenes; eight of them hold few people and poles, whose figures scatter.
    assert mean_iou(matrix) > 65
    assert pixel_accuracy(matrix) > 90
    assert np.nanmin(class_iou(matrix)) > 10
