import os
import signal
import subprocess
import sys

from runtime.cli import stopped_by

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def end_of(body):
    """Exit code and standard error of a process whose main has this body."""
    code = "from runtime.cli import run\ndef main(argv):\n    " + body + "\nrun(main)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    return done.returncode, done.stderr.decode()


def test_a_mistake_that_our_lines_found_is_one_sentence():
    code, said = end_of("from runtime.session import session_config; session_config('tpu')")
    assert code == 2
    assert said == "error: --device tpu is unknown; choose one of cpu, gpu, npu.\n"


def test_an_error_inside_a_library_keeps_its_traceback():
    code, said = end_of("import json; json.loads('{')")
    assert code == 1 and "Traceback" in said


def test_a_file_that_is_not_there_is_one_sentence():
    code, said = end_of("open('/nowhere/file')")
    assert (code, said) == (2, "error: /nowhere/file: No such file or directory.\n")


def test_the_code_of_main_is_the_code_of_the_process():
    assert end_of("return 7") == (7, "")


def test_ctrl_c_ends_in_one_line_and_code_130():
    assert end_of("raise KeyboardInterrupt") == (130, "interrupted.\n")


def imports_end(line):
    """Standard error of a process that fails in its imports, before `run`."""
    code = f"import runtime\n{line}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    assert done.returncode not in (0, 2)
    return done.stderr.decode()


def test_ctrl_c_during_imports_is_one_line():
    assert imports_end("raise KeyboardInterrupt") == "interrupted.\n"


def test_a_missing_package_during_imports_is_one_sentence():
    shown = imports_end("import sys; sys.modules['yaml'] = None; import yaml")
    assert shown.startswith("error: yaml is not installed for ") and shown.count("\n") == 1
    assert "`make venv`" in shown and "source .venv/bin/activate" in shown


def test_a_defect_during_imports_keeps_its_traceback():
    assert "Traceback" in imports_end("import no_such_module")


def test_a_missing_package_is_one_sentence_of_code_2():
    code, shown = end_of("import sys; sys.modules['tensorflow'] = None; import runtime.tf1")
    assert code == 2 and shown.startswith("error: tensorflow is not installed for ")


def test_a_write_error_without_a_path_names_its_reason():
    code, shown = end_of("raise OSError(28, 'No space left on device')")
    assert code == 2
    assert shown == "error: a file could not be written or read: No space left on device.\n"


def test_a_closed_pipe_ends_without_a_message():
    body = "for _ in range(9**5): print('x' * 99)"
    code = "from runtime.cli import run\ndef main(argv):\n    " + body + "\nrun(main)"
    script = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    script.stdout.readline()
    script.stdout.close()
    assert script.stderr.read() == b"" and script.wait() == 128 + 13


def test_the_code_of_a_signal_is_128_and_its_number():
    assert (stopped_by(signal.SIGTERM), stopped_by(signal.SIGINT)) == (143, 130)
