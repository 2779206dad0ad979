import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def end_of(body):
    """Exit code and standard error of a process whose main has this body."""
    code = "from runtime.cli import run\ndef main(argv):\n    " + body + "\nrun(main)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    return done.returncode, done.stderr.decode()


def test_a_mistake_that_our_lines_found_is_one_sentence():
    code, said = end_of("from runtime.session import session_config; session_config('tpu')")
    assert code == 2
    assert said == "error: --device tpu is not known here; choose one of cpu, gpu, npu.\n"


def test_an_error_inside_a_library_keeps_its_traceback():
    code, said = end_of("import json; json.loads('{')")
    assert code == 1 and "Traceback" in said


def test_a_file_that_is_not_there_is_one_sentence():
    code, said = end_of("open('/nowhere/file')")
    assert (code, said) == (2, "error: /nowhere/file: No such file or directory.\n")


def test_the_code_of_main_is_the_code_of_the_process():
    assert end_of("return 7") == (7, "")
