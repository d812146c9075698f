"""Students of every family, with and without adapters, come back from a folder as they were."""

import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from student_samples import FAMILIES, make_sample, make_tied_student, pack_one, put_adapter
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Config, Qwen2ForCausalLM

from autodrive.errors import InputError
from autodrive.inference.answering import respondent_of
from autodrive.students import student as students
from autodrive.students.student import SETTINGS_FILE, load_student
from autodrive.students.tree_attention import CLIP_TREES, check_tree_attention, use_tree_attention


@pytest.fixture(autouse=True)
def test_family(monkeypatch):
    monkeypatch.setitem(students.FAMILIES, "patches", "patch_student.PatchStudent")


VARIANTS = FAMILIES | {"qwen2_5_vl tied": make_tied_student}


def adapted(family: str, kind: str = "lora"):
    """A student with an adapter in place, every tensor of which is random."""
    student = FAMILIES[family]()
    put_adapter(student.towers, kind)
    return student


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_student_comes_back(variant, tmp_path):
    student = VARIANTS[variant]()
    student.save(tmp_path / "student")
    loaded = load_student(tmp_path / "student")
    assert type(loaded) is type(student)
    assert loaded.name == student.name
    assert loaded.processor.settings() == student.processor.settings()
    row, again = pack_one(student, make_sample()), pack_one(loaded, make_sample())
    assert torch.equal(again.input_ids, row.input_ids)
    assert torch.equal(loaded.supervised_logits(again), student.supervised_logits(row))
    assert loaded.prefill(again).generate([4] * 3) == student.prefill(row).generate([4] * 3)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_on_weights_that_no_file_holds_is_saved_with_them(family, kind, tmp_path):
    student = adapted(family, kind)
    row = pack_one(student, make_sample())
    assert not torch.equal(student.supervised_logits(row), FAMILIES[family]().supervised_logits(row))
    student.save(tmp_path / "student")
    loaded = load_student(tmp_path / "student")
    assert torch.equal(loaded.supervised_logits(row), student.supervised_logits(row))
    ours, theirs = (dict(one.named_parameters()) for one in (loaded, student))
    assert ours.keys() == theirs.keys()
    assert any("lora_A" in name for name in ours)
    assert all(ours[name].requires_grad == theirs[name].requires_grad for name in ours)
    name = respondent_of(loaded).adapter
    assert re.fullmatch(rf"{kind}_r4@[0-9a-f]{{16}}", str(name))
    settings = json.loads((tmp_path / "student" / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["use_dora"]) == (4, kind == "dora")
    next(parameter for name, parameter in loaded.named_parameters() if "lora_B" in name).data += 1e-3
    assert respondent_of(loaded).adapter != name


def test_an_adapter_keeps_its_own_precision(tmp_path):
    student = FAMILIES["qwen2_5_vl"]().to(torch.bfloat16)
    student.dtype = torch.bfloat16
    put_adapter(student.towers, "dora")
    student.save(tmp_path / "student")
    loaded = load_student(tmp_path / "student")
    for (name, ours), theirs in zip(loaded.named_parameters(), student.parameters(), strict=True):
        assert ours.dtype == (torch.float32 if "lora_" in name else torch.bfloat16), name
        assert torch.equal(ours, theirs), name


def test_base_and_adapter_are_what_transformers_and_peft_read(tmp_path):
    student = adapted("qwen2_5_vl", "dora")
    folder = tmp_path / "student"
    student.save(folder)
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder / "adapter")
    assert model.peft_config["default"].to_dict()["use_dora"]
    tree = student.processor.encode(make_sample())
    branch = tree.branches[0]
    ours = student.supervised_logits(pack_one(student, make_sample()))[: len(branch.target_ids)]
    inputs = student.stock_inputs(tree, branch.ids)
    theirs = model(**inputs, use_cache=False).logits[0, -len(branch.target_ids) - 1 : -1]
    assert torch.allclose(ours, theirs, atol=1e-4)


def damaged(folder: Path, what: str) -> None:
    adapter = folder / "adapter" / "adapter_model.safetensors"
    settings = json.loads((folder / SETTINGS_FILE).read_text())
    if what == "no adapter weights":
        adapter.unlink()
    elif what == "an adapter tensor is missing":
        tensors = load_file(adapter)
        del tensors[next(iter(tensors))]
        save_file(tensors, adapter)
    elif what == "another rank":
        config = json.loads((adapter.parent / "adapter_config.json").read_text())
        (adapter.parent / "adapter_config.json").write_text(json.dumps(config | {"r": 2}))
    elif what == "another family":
        settings["family"] = "os.system"
    elif what in ("family", "processor"):
        del settings[what]
    elif what.startswith("vision."):
        key, _, value = what.partition(" ")
        settings["processor"]["vision"][key.removeprefix("vision.")] = json.loads(value)
    elif what == "weights cut off":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    elif what == "config.json of another size":
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["intermediate_size"] *= 2
        (folder / "config.json").write_text(json.dumps(config))
    (folder / SETTINGS_FILE).write_text("{" if what == "no JSON" else json.dumps(settings))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no adapter weights", "adapter_model.safetensors"),
        ("an adapter tensor is missing", "does not fit adapter_config.json"),
        ("another rank", "adapter_model.safetensors"),
        ("another family", "family 'os.system' is not known; choose"),
        ("family", "family: Field required"),
        ("processor", "processor: Field required"),
        ("vision.merge_size 0", "vision.merge_size: Input should be greater than 0"),
        ("vision.merge_size 1", "vision.merge_size is 1, but config.json says 2"),
        ("vision.patch_size 1e9", "vision.patch_size is 1000000000, but config.json says 14"),
        ("vision.image_mean [0.5, 0.5]", "vision.image_mean: Tuple should have at least 3 items"),
        ("vision.image_std [0, 1, 1]", "vision.image_std.0: Input should be greater than 0"),
        ("weights cut off", "cannot be read"),
        ("config.json of another size", "restore the student's folder"),
        ("no JSON", SETTINGS_FILE),
    ],
)
def test_a_damaged_folder_is_one_line(what, said, tmp_path):
    adapted("qwen2_5_vl").save(tmp_path)
    damaged(tmp_path, what)
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        load_student(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_student_is_refused(tmp_path):
    with pytest.raises(InputError, match=re.escape(SETTINGS_FILE)):
        load_student(tmp_path)


def tiny_qwen2(**changes) -> Qwen2ForCausalLM:
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    return Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=1, **changes))


def test_a_plain_qwen2_gets_tree_attention():
    model = tiny_qwen2()
    use_tree_attention(model)
    check_tree_attention(model)
    assert model.model.config._attn_implementation == CLIP_TREES


class DeafQwen2(Qwen2ForCausalLM):
    """Its attention implementation cannot be chosen, as with models of the older kind."""

    def set_attn_implementation(self, *_: object, **__: object) -> None:
        pass


def test_attention_that_is_not_that_of_clip_trees_is_refused():
    with pytest.raises(ValueError, match="not that of clip trees"):
        use_tree_attention(DeafQwen2(tiny_qwen2().config))
    windowed = tiny_qwen2(use_sliding_window=True, sliding_window=8, max_window_layers=1)
    with pytest.raises(ValueError, match="sliding_attention"):
        use_tree_attention(windowed)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_whose_attention_was_changed_later_is_refused(family):
    student = FAMILIES[family]()
    row = pack_one(student, make_sample())
    student.text_model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="branches would see each other"):
        student.supervised_logits(row)
    with pytest.raises(ValueError, match="branches would see each other"):
        student.prefill(row)


def test_no_family_is_named_outside_the_students_room(repository):
    """Another family is then a matter of `autodrive/students` and `conf/student` alone.

    A configuration or a command that chooses a student by its name names an option, not a family.
    """
    chosen = re.compile(r"student(: |=)[a-z]\w*")
    named = re.compile(r"qwen|cosmos|nvila|grid_thw|patches_PD", re.IGNORECASE)
    paths = [
        *repository.glob("*.py"),
        *(repository / "autodrive").rglob("*.py"),
        *(repository / "conf").rglob("*.yaml"),
    ]
    checked = [p for p in paths if not {"students", "student"} & set(p.relative_to(repository).parts)]
    assert len(checked) > 100
    found = [
        f"{path.relative_to(repository)}:{number}: {line.strip()}"
        for path in checked
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if named.search(chosen.sub("", line))
    ]
    assert not found
