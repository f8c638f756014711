"""The benchmarks run (on little) and the page is generated from what they wrote; no timings are tested."""
import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from k3dn_plugin.errors import DataError
from k3dn_plugin.inference.compiled import COMPILERS

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import page, results_page, scaling_page  # noqa: E402


def run(script, *arguments):
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)],
                          capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("script, arguments", [
    ("restorers.py", ("--size", 32, "--rounds", 1)),
    ("train_step.py", ("--crop", 32, 32, "--rounds", 1)),
])
def test_a_restorer_is_measured(script, arguments, tmp_path):
    path = tmp_path / "out.csv"
    code, printed, errors = run(script, "--only", "DRBNet", *arguments, "--csv", path)
    assert code == 0, errors
    with open(path, newline="", encoding="utf-8") as file:
        row, = csv.DictReader(file)
    assert row["ran_as"] == "32 x 32" and float(row["cpu_seconds"]) > 0 and float(row["load"]) >= 0
    assert row["restorer"] == "DRBNet" and float(row["seconds"]) > 0 and float(row["ratio"]) == 1
    assert row["torch"] and row["device"] and "DRBNet" in printed


@pytest.mark.slow
def test_exported_files_are_measured(tmp_path):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra [export] is not installed")
    path = tmp_path / "out.csv"
    code, printed, errors = run("exported.py", "--recipes", "ifan_dual_dpdd", "--size", 64, 64, "--rounds", 1,
                                "--csv", path)
    assert code == 0, errors
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["way"] for row in rows] == ["PyTorch", "torch.export", "ONNX Runtime"]
    assert float(rows[0]["times_faster"]) == 1 and all(float(row["difference"]) < 1e-4 for row in rows[1:])


@pytest.mark.slow
def test_the_parts_for_a_gpu_run_without_one(tmp_path):
    code, printed, errors = run("gpu.py", "--dry-run", "--csv", tmp_path / "out.csv")
    assert code == 0, errors
    parts = [line.partition(" ")[0] for line in printed.splitlines()[1:]]
    assert {"outputs", "speed", "compile", "training", "simulator", "resumed"} <= set(parts)
    assert any(line.startswith("resumed") and " 0 " in line for line in printed.splitlines())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_is_asked_for(tmp_path):
    code, _, errors = run("gpu.py", "--csv", tmp_path / "out.csv")
    assert code == 2 and "no GPU that torch can use" in errors


def test_simulators_are_measured(tmp_path):
    path = tmp_path / "out.csv"
    code, printed, errors = run("simulation.py", "--rounds", 1, "--seconds", 0.01, "--csv", path)
    assert code == 0, errors
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["ratio"]) == 1 and all(float(row["samples_per_second"]) > 0 for row in rows)
    assert rows[0]["torch"] and rows[0]["device"] and "layered, fast" in printed


def test_an_unknown_restorer_is_reported(tmp_path):
    code, _, errors = run("restorers.py", "--only", "Nobody", "--csv", tmp_path / "out.csv")
    assert code == 2 and "no restorer is called Nobody" in errors and not list(tmp_path.iterdir())


def test_the_page_is_the_generated_one():
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "python benchmarks/page.py"


def test_the_page_about_scaling_is_the_generated_one():
    assert scaling_page.TARGET.read_text(encoding="utf-8") == scaling_page.page(), "python benchmarks/scaling_page.py"


def test_the_page_of_results_is_the_generated_one():
    assert not results_page.KEPT.is_dir() or results_page.PAGE.read_text(encoding="utf-8") == results_page.page(), \
        "python benchmarks/results_page.py"


def test_what_is_no_comparison_is_not_kept_for_the_page(tmp_path):
    with pytest.raises(DataError, match=r"no plan.json; expected the folder of a finished comparison"):
        results_page.keep("name", tmp_path, "title", kept=tmp_path / "kept", pictures=tmp_path / "pictures")
    assert not list(tmp_path.iterdir())


def test_time_is_shared_out_by_operators(tmp_path):
    path = tmp_path / "out.csv"
    code, _, errors = run("where_time_goes.py", "--recipes", "k3dn_demo", "--size", 48, 48, "--passes", 1,
                          "--csv", path)
    assert code == 0, errors
    with open(path, newline="", encoding="utf-8") as file:
        row, = csv.DictReader(file)
    shares = [int(row[kind][:-1]) for kind in ("convolutions", "matrix_products", "other")]
    assert shares[0] > 0 and 98 <= sum(shares) <= 102 and float(row["convolution_gflops"]) > 0


def test_the_cost_of_a_recipe_is_counted(tmp_path):
    path = tmp_path / "out.csv"
    code, _, errors = run("comparison_cost.py", "--only", "kpac_dual_dpdd", "--tflops", 10, "--csv", path)
    assert code == 0, errors
    with open(path, newline="", encoding="utf-8") as file:
        row, = csv.DictReader(file)
    # Twice the multiply-accumulates at 10^13 operations a second.
    hours = 2 * float(row["training_PMACs"]) * 1e15 / 1e13 / 3600
    assert float(row["training_hours"]) == pytest.approx(hours, rel=0.02)
    assert int(row["samples"]) == 2_400_000 and row["hours_from"] == "10 TFLOP/s"


def test_readers_of_one_store_are_counted(tmp_path):
    path = tmp_path / "out.csv"
    code, _, errors = run("store_readers.py", "--processes", 1, 3, "--seconds", 0.1, "--scenes", 2, "--size", 64, 80,
                          "--crop", 16, "--csv", path)
    assert code == 0, errors
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["cache"], row["processes"]) for row in rows] == [
        ("cold", "1"), ("cold", "3"), ("warm", "1"), ("warm", "3")]
    assert all(int(row["samples"]) > 0 and row["wrong"] == "0" for row in rows)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="there is no C++ compiler")
def test_compiling_is_measured(tmp_path):
    path = tmp_path / "out.csv"
    code, _, errors = run("compiling.py", "--recipes", "dpdnet_demo", "--precisions", "float32", "--size", 32, 32,
                          "--rounds", 1, "--csv", path)
    assert code == 0, errors
    with open(path, newline="", encoding="utf-8") as file:
        row, = csv.DictReader(file)
    assert row["pair"] == "32 x 32"
    assert float(row["first_call_cpu_s"]) > 0 and float(row["times_faster"]) > 0
