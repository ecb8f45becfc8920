"""The command: what it prints, what it writes, and that one file's failure ends no folder."""

from __future__ import annotations

import codecs
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from ganloss_fast.adopt import command

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))


def test_nothing_is_written_unless_it_is_asked_for(tmp_path, capsys):
    script = tmp_path / "train.py"
    source = (SCRIPTS[0]).read_text()
    script.write_text(source)
    assert command.main([str(tmp_path)]) == 0
    assert script.read_text() == source
    assert list(tmp_path.iterdir()) == [script]
    assert "+import ganloss_fast as gf" in capsys.readouterr().out


def test_writing_keeps_the_old_script_and_never_overwrites_one(tmp_path, capsys):
    script = tmp_path / "train.py"
    source = "# caf\u00e9\r\n" + (SCRIPTS[0]).read_text()
    script.write_text(source, newline="")
    script.chmod(0o750)
    assert command.main([str(script), "--write"]) == 0
    backup = tmp_path / "train.py.orig"
    assert backup.read_bytes() == source.encode()
    assert "ganloss_fast" in script.read_text()
    assert script.stat().st_mode & 0o777 == 0o750
    assert sorted(tmp_path.iterdir()) == [script, backup]
    assert command.main([str(script), "--write"]) == 0  # there is nothing left to change
    script.write_text(source, newline="")
    assert command.main([str(script), "--write"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert script.read_bytes() == source.encode()


@pytest.mark.parametrize(
    ("first", "encoding"),
    [("# -*- coding: latin-1 -*-", "latin-1"), ("# vim: set fileencoding=cp1252 :", "cp1252")],
)
def test_a_script_keeps_the_encoding_that_it_declares(tmp_path, first, encoding):
    script = tmp_path / "train.py"
    source = f"{first}\n# caf\u00e9\n{SCRIPTS[0].read_text()}"
    script.write_text(source, encoding=encoding)
    assert command.main([str(script), "--write"]) == 0
    assert (tmp_path / "train.py.orig").read_bytes() == source.encode(encoding)
    after = script.read_bytes()
    assert after.startswith(f"{first}\n# caf\u00e9\n".encode(encoding))
    assert b"ganloss_fast" in after


def test_a_byte_order_mark_stays_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPTS[0].read_text(), encoding="utf-8-sig")
    assert command.main([str(script), "--write"]) == 0
    after = script.read_bytes()
    assert after.startswith(codecs.BOM_UTF8)
    assert after.count(codecs.BOM_UTF8) == 1
    compile(after, str(script), "exec")


def test_what_a_link_points_to_is_changed_and_the_link_stays(tmp_path):
    script, link = tmp_path / "train.py", tmp_path / "link.py"
    script.write_text(SCRIPTS[0].read_text())
    link.symlink_to(script)
    assert command.main([str(link), "--write"]) == 0
    assert link.is_symlink()
    assert "ganloss_fast" in script.read_text()
    assert (tmp_path / "train.py.orig").read_text() == SCRIPTS[0].read_text()


def test_a_file_that_cannot_be_read_does_not_stop_the_others(tmp_path, capsys):
    (tmp_path / "a.py").write_text("def broken(:\n")
    (tmp_path / "b.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "c.py").write_text((SCRIPTS[0]).read_text())
    assert command.main([str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "a.py: not read" in err
    assert "b.py: not read" in err
    assert "discriminator_side_loss" in out


def test_any_exception_is_of_one_file_alone(tmp_path, capsys, monkeypatch):
    def failing(source, path):
        if path.endswith("a.py"):
            raise KeyError("inputs")
        return propose(source, path)

    propose = command.propose
    monkeypatch.setattr(command, "propose", failing)
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(SCRIPTS[0].read_text())
    assert command.main([str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "a.py: not read: KeyError: 'inputs'" in err
    assert "b.py" in out


def test_the_command_of_the_package(tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "ganloss_fast", *arguments], capture_output=True, text=True
        )

    assert "Nothing found" in run("adopt", str(tmp_path)).stdout
    missing = run("adopt", str(tmp_path / "nowhere"))
    assert missing.returncode == 2
    assert "does not exist" in missing.stderr
    unknown = run("adapt")
    assert unknown.returncode == 2
    assert "expected nothing or adopt" in unknown.stderr
