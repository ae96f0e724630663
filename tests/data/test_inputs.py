import sys
from pathlib import Path

import pytest
from PIL import Image

from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.inputs import find_inputs
from fcn_deploy.errors import DependencyError, InputError, UsageError
from tests.support.videos import make_video, moving

pytest.importorskip("av")


def test_files_folders_and_patterns_are_found_in_their_order_and_each_once(folder):
    inputs = [folder / "image_3.png", str(folder / "image_[01].png"), str(folder)]
    names = [path.name for path in find_inputs(inputs).images]
    assert names == [f"image_{index}.png" for index in (3, 0, 1, 2, 4, 5, 6)]


@pytest.mark.parametrize("kind", [str, Path])
def test_one_path_may_stand_alone(folder, kind):
    assert tuple(find_inputs(kind(folder)).images) == ImageFolder.open(folder).paths


def test_images_of_sub_folders_are_found_with_their_place(folder):
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "image_2.png").rename(folder / "a" / "b" / "image_0.png")
    assert Path("a/b") not in find_inputs(folder).images.values()
    found = find_inputs([folder, folder / "image_0.png"], recursive=True).images
    assert found[folder / "a" / "b" / "image_0.png"] == Path("a/b")
    assert found[folder / "image_0.png"] == Path()
    assert len(found) == 7


def test_what_names_no_image_is_an_input_error(folder):
    with pytest.raises(InputError, match=r"none\*\.png names no image"):
        find_inputs([str(folder), str(folder / "none*.png")])
    (folder / "notes.txt").write_text("text")
    with pytest.raises(InputError, match=r"not images; got notes\.txt"):
        find_inputs([folder / "image_0.png", folder / "notes.txt"])


# Patterns


@pytest.fixture
def tree(tmp_path):
    """Images and a video in folders of two depths, and a link that makes a loop."""
    for name in ("top.png", "a/x.png", "b/x.png", "b/deep/y.png", ".hidden/z.png", "b/.z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(tmp_path / name)
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "b" / "notes.txt").write_text("hello")
    make_video(tmp_path / "b" / "clip.mp4", moving(2))
    return tmp_path


def places(found):
    return [str(place / path.name) for path, place in found.items()]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.png", ["top.png"]),
        ("*/x.png", ["a/x.png", "b/x.png"]),
        ("**/*.png", ["a/x.png", "b/deep/y.png", "b/x.png", "top.png"]),
        ("b/**/*.png", ["deep/y.png", "x.png"]),
        ("**/.hidden/*.png", [".hidden/z.png"]),
        ("a/../[ab]/x.png", ["a/x.png", "b/x.png"]),
        ("[ab]/x.p?g", ["a/x.png", "b/x.png"]),
    ],
)
def test_patterns_keep_the_folders_after_their_first_wildcard(tree, pattern, names):
    assert places(find_inputs(f"{tree}/{pattern}").images) == names


def test_a_pattern_may_match_videos_too(tree):
    found = find_inputs(f"{tree}/b/*.[mp][pn]*")
    assert places(found.images) == ["x.png"]
    assert places(found.videos) == ["clip.mp4"]


def test_a_pattern_that_ends_in_all_folders_matches_files(tree):
    (tree / "b" / "notes.txt").unlink()
    found = find_inputs(f"{tree}/b/**")
    assert places(found.images) == ["deep/y.png", "x.png"]


def test_relative_patterns_and_names_with_brackets(tree, monkeypatch):
    monkeypatch.chdir(tree)
    (tree / "top.png").rename("[1].png")
    assert places(find_inputs("[1].png").images) == ["[1].png"]
    assert list(find_inputs("*/x.png").images) == [Path("a/x.png"), Path("b/x.png")]


def test_a_pattern_that_python_does_not_know_is_a_usage_error(tree):
    if sys.version_info >= (3, 13):
        with pytest.raises(InputError, match="names no image"):
            find_inputs(f"{tree}/no**thing/*.png")
    else:
        with pytest.raises(UsageError, match="bad pattern"):
            find_inputs(f"{tree}/a**b/*.png")


# Folders, and what is left out


def test_folders_give_their_images_and_videos(tree):
    found = find_inputs(tree / "b")
    assert places(found.images) == ["x.png"]
    assert places(found.videos) == ["clip.mp4"]
    found = find_inputs(tree, recursive=True)
    assert places(found.images) == ["a/x.png", "b/deep/y.png", "b/x.png", "top.png"]
    assert places(found.videos) == ["b/clip.mp4"]


def test_a_folder_of_videos_alone_is_fine(tmp_path):
    make_video(tmp_path / "clip.mp4", moving(2))
    assert places(find_inputs(tmp_path).videos) == ["clip.mp4"]


@pytest.mark.parametrize("named", ["", "/**/*.png"])
def test_results_inside_the_input_are_not_inputs(tree, named, caplog):
    found = find_inputs(f"{tree}{named}", recursive=True, output=tree / "b" / "deep")
    assert "b/deep/y.png" not in places(found.images)
    assert f"{tree / 'b' / 'deep'}: left out, because results are written there" in caplog.text


def test_a_file_that_is_named_itself_is_never_left_out(tree):
    assert places(find_inputs(tree / "b" / "deep" / "y.png", output=tree / "b" / "deep").images) == ["y.png"]
    assert places(find_inputs(tree / "b" / "deep", output=tree / "b" / "deep").images) == ["y.png"]


def test_what_is_named_in_two_ways_is_taken_once(tree, monkeypatch):
    monkeypatch.chdir(tree)
    named = ["top.png", tree / "top.png", "a/../top.png", "*.png", tree]
    assert list(find_inputs(named).images) == [Path("top.png")]


def test_bad_files_are_told_and_the_others_kept(tree):
    (tree / "b" / "bad.mp4").write_text("no video")
    (tree / "b" / "bad.png").write_text("no image")
    told = {}
    found = find_inputs([tree / "b", tree / "b" / "notes.txt"], on_bad=lambda path, error: told.update({path: error}))
    assert places(found.videos) == ["clip.mp4"]
    assert sorted(path.name for path in told) == ["bad.mp4", "bad.png", "notes.txt"]
    with pytest.raises(InputError, match=r"bad\.png is not an image"):
        find_inputs(tree / "b")


# Cameras and streams


@pytest.mark.parametrize("address", ["camera:0", "rtsp://host/street"])
def test_a_camera_or_stream_goes_alone(tree, address):
    assert find_inputs(address).live == find_inputs([address]).live == address
    for others in ([tree], [address], ["camera:1"]):
        with pytest.raises(UsageError, match="a camera or a stream goes alone; got 2 inputs"):
            find_inputs([address, *others])


def test_a_file_or_folder_with_the_name_of_a_number_is_a_file_or_folder(tree, monkeypatch):
    monkeypatch.chdir(tree)
    with pytest.raises(InputError, match=r"0 names no image.*fix: name a camera as camera:0"):
        find_inputs("0")
    (tree / "a").rename("0")
    assert places(find_inputs("0").images) == ["x.png"]


def test_other_addresses_say_what_is_read():
    with pytest.raises(InputError, match="fix: streams are read from rtsp:// and rtsps:// addresses"):
        find_inputs("http://host/a.mp4")


@pytest.mark.parametrize("address", ["http://user:secret@host/a.mp4?key=secret", "rtmp://user:secret@host/a*"])
def test_other_addresses_show_no_password(address):
    with pytest.raises(InputError, match=r"://host/a.* names no image") as caught:
        find_inputs(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("inputs", [None, 5, b"street", [None], ["street", 5]])
def test_what_is_no_path_is_refused(inputs):
    with pytest.raises(UsageError, match=r"bad `?input"):
        find_inputs(inputs)


@pytest.mark.parametrize("name", ["gone.png", "gone.mp4"])
@pytest.mark.parametrize("named", ["", "*", "**/*.*"])
def test_a_broken_link_is_not_left_out_without_a_word(tree, name, named):
    (tree / name).symlink_to("nowhere")
    (tree / "notes.txt").symlink_to("nowhere")  # nobody looks for it
    inputs = str(tree / named) if named else tree
    with pytest.raises(InputError, match=f"{name} is a broken symbolic link"):
        find_inputs(inputs, recursive=True)
    bad = []
    found = find_inputs(inputs, recursive=True, on_bad=lambda path, error: bad.append(path))
    assert tree / name in bad
    assert tree / "notes.txt" not in bad
    assert found.images


def test_a_device_is_no_file():
    with pytest.raises(InputError, match="/dev/null is a device; expected a file; fix: name a camera by its number"):
        find_inputs("/dev/null")


# Without PyAV


def test_without_pyav_images_are_found_and_videos_are_told(tree, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "av", None)
    found = find_inputs(tree / "b")
    assert places(found.images) == ["x.png"]
    assert not found.videos
    assert "clip.mp4 is left out: video needs PyAV" in caplog.text
    for named in (tree / "b" / "clip.mp4", f"{tree}/b/*.mp4", "camera:0"):
        with pytest.raises(DependencyError, match="video needs PyAV"):
            find_inputs(named)
    with pytest.raises(InputError, match=r"not images; got notes\.txt"):
        find_inputs(tree / "b" / "notes.txt")
