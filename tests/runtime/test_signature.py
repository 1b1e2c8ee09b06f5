"""Signed bundles, by the system's own ssh-keygen: what a board that requires signatures opens, and what it does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
from edgelstm.runtime import Bundle, BundleError, InputError, load
from edgelstm.runtime.bundle import write_bundle
from edgelstm.runtime.cli import main

from tests.engine.toolchain import require
from tests.toolkit.conftest import call


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two keys: the one that is allowed, and another."""
    require("ssh-keygen")
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
        subprocess.run(command, check=True)
    public = (folder / "ours.pub").read_text()
    (folder / "allowed").write_text(f'builder@example.com namespaces="edgelstm-bundle" {public}')
    return folder


@pytest.fixture
def signed(bundle, keys):
    done = call("sign", bundle, "--key", keys / "ours")
    assert done.status == 0, done.err
    assert 'namespaces="edgelstm-bundle" ssh-ed25519 ' in done.out
    return bundle


def test_a_signed_bundle_opens_and_says_by_whom(signed, keys, xs, expected):
    assert Bundle.open(signed, keys / "allowed").signer == "builder@example.com"
    model = load(signed, allowed_signers=keys / "allowed")
    np.testing.assert_allclose(model.stream().run(xs), expected, atol=2e-6)
    shown = call("inspect", signed, "--allowed-signers", keys / "allowed")
    assert "signed by   builder@example.com" in shown.out


def test_ssh_keygen_itself_agrees(signed, keys, tmp_path):
    with zipfile.ZipFile(signed) as archive:
        (tmp_path / "sig").write_bytes(archive.read("manifest.json.sig"))
        manifest = archive.read("manifest.json")
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    command = ["ssh-keygen", "-Y", "verify", "-f", keys / "allowed", "-I", "builder@example.com"]
    command += ["-n", "edgelstm-bundle", "-s", tmp_path / "sig"]
    assert subprocess.run([*map(str, command)], input=manifest, capture_output=True).returncode == 0


def test_nothing_but_the_signature_and_the_counter_changes(bundle, keys):
    with zipfile.ZipFile(bundle) as archive:
        before = {name: archive.read(name) for name in archive.namelist()}
    counters = []
    for _ in range(2):  # A second signature takes the place of the first.
        assert call("sign", bundle, "--key", keys / "ours").status == 0
        with zipfile.ZipFile(bundle) as archive:
            after = {name: archive.read(name) for name in archive.namelist()}
        assert after.pop("manifest.json.sig").startswith(b"-----BEGIN SSH SIGNATURE-----")
        assert {name: data for name, data in after.items() if name != "manifest.json"} == {
            name: data for name, data in before.items() if name != "manifest.json"
        }
        counters.append(json.loads(after["manifest.json"]).pop("counter"))
        assert {**json.loads(after["manifest.json"]), "counter": 0} == json.loads(before["manifest.json"])
    assert 0 < counters[0] < counters[1]
    assert call("sign", bundle, "--key", keys / "ours", "--counter", 7).status == 0
    assert Bundle.open(bundle).manifest.counter == 7
    assert call("sign", bundle, "--key", keys / "ours", "--counter", -1).status == 2


def test_a_folder_is_signed_as_well(parts, keys, tmp_path):
    folder = write_bundle(tmp_path / "folder", *parts).path
    assert call("sign", folder, "--key", keys / "ours").status == 0
    assert Bundle.open(folder, keys / "allowed").signer == "builder@example.com"
    (folder / "manifest.json.sig").unlink()
    with pytest.raises(BundleError, match="is not signed"):
        Bundle.open(folder, keys / "allowed")


def rewrite(path, change):
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    change(content)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def flip(name, at):
    def change(content):
        data = bytearray(content[name])
        data[at] ^= 1
        content[name] = bytes(data)

    return change


def forge(content):
    """Another artifact, with a manifest that agrees."""
    import hashlib

    name = "model.float32.elm"
    content[name] = content[name][:-1] + b"\1"
    manifest = json.loads(content["manifest.json"])
    (artifact,) = (each for each in manifest["artifacts"] if each["file"] == name)
    artifact["sha256"] = hashlib.sha256(content[name]).hexdigest()
    content["manifest.json"] = json.dumps(manifest).encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.pop("manifest.json.sig"), "is not signed"),
        (flip("manifest.json", -3), "its signature does not fit"),
        (forge, "its signature does not fit"),
        (flip("manifest.json.sig", 120), "nobody whom|does not fit"),
        (lambda content: content.update({"manifest.json.sig": b"x" * 10}), "nobody whom"),
        (lambda content: content.update({"manifest.json.sig": b"x" * 100_000}), "100000 bytes where"),
        (flip("model.float32.elm", 300), "is not the file that was exported"),
    ],
)
def test_whatever_was_changed_is_refused(signed, keys, change, words):
    rewrite(signed, change)
    with pytest.raises(BundleError, match=words):
        load(signed, allowed_signers=keys / "allowed").stream()


def test_signed_by_somebody_else(signed, keys):
    assert call("sign", signed, "--key", keys / "theirs").status == 0
    with pytest.raises(BundleError, match="signed by nobody whom"):
        Bundle.open(signed, keys / "allowed")


def test_a_signature_for_something_else_does_not_count(signed, keys, tmp_path):
    """The same key's signature of the same bytes, made for another purpose."""
    with zipfile.ZipFile(signed) as archive:
        (tmp_path / "m").write_bytes(archive.read("manifest.json"))
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", keys / "ours", "-n", "git", tmp_path / "m"], check=True)
    other = (tmp_path / "m.sig").read_bytes()
    rewrite(signed, lambda content: content.update({"manifest.json.sig": other}))
    with pytest.raises(BundleError, match="does not fit"):
        Bundle.open(signed, keys / "allowed")


def test_no_artifact_is_read_before_the_signature_is_good(bundle, keys, monkeypatch):
    read = []
    monkeypatch.setattr(Bundle, "read", lambda self, entry: read.append(entry))
    with pytest.raises(BundleError, match="is not signed"):
        load(bundle, allowed_signers=keys / "allowed")
    assert not read


def test_a_board_that_requires_signatures_runs_nothing_else(bundle, signed, parts, keys, tmp_path, monkeypatch, capsys):
    unsigned = shutil.copy(signed, tmp_path / "unsigned.edge")
    rewrite(unsigned, lambda content: content.pop("manifest.json.sig"))
    single = tmp_path / "single.elm"
    single.write_bytes(parts[1]["model.float32.elm"])
    monkeypatch.setenv("EDGELSTM_ALLOWED_SIGNERS", str(keys / "allowed"))
    assert main(["verify", str(signed), "--backend", "native"]) == 0
    for path, commands in ((unsigned, ("run", "verify", "inspect")), (single, ("run", "inspect"))):
        for command in commands:
            assert main([command, str(path)]) == 2
            assert "sign" in capsys.readouterr().err
    monkeypatch.setenv("EDGELSTM_ALLOWED_SIGNERS", str(tmp_path / "gone"))
    with pytest.raises(InputError, match="no file of allowed signers"):
        load(signed)


def test_keys_that_cannot_sign(bundle, keys, tmp_path):
    missing = call("sign", bundle, "--key", tmp_path / "nothing")
    assert (missing.status, "no key is there" in missing.err) == (2, True)
    (tmp_path / "bad").write_text("not a key")
    bad = call("sign", bundle, "--key", tmp_path / "bad")
    assert (bad.status, "cannot sign" in bad.err) == (2, True)
    assert "manifest.json.sig" not in zipfile.ZipFile(bundle).namelist()
    rewrite(bundle, flip("model.float32.elm", 300))
    assert call("sign", bundle, "--key", keys / "ours").status == 2


def test_a_link_that_leads_nowhere_requires_signatures_too(bundle, tmp_path, monkeypatch):
    link = tmp_path / "allowed_signers"
    link.symlink_to(tmp_path / "not mounted yet")
    monkeypatch.setattr("edgelstm.runtime.signature.SYSTEM_WIDE", link)
    with pytest.raises(InputError, match="no file of allowed signers is there"):
        load(bundle)


def line(keys, key, principals="builder@example.com", options='namespaces="edgelstm-bundle"'):
    return f"{principals} {options} {(keys / f'{key}.pub').read_text()}"


@pytest.mark.parametrize(
    ("lines", "signer"),
    [
        # The first line with the key is about something else; ssh-keygen by itself looks no further.
        (lambda k: [line(k, "ours", "git@x", 'namespaces="git"'), line(k, "ours", "b@x")], "b@x"),
        (lambda k: [line(k, "ours", "old@x", 'valid-before="20200101"'), line(k, "ours", "b@x", "")], "b@x"),
        (lambda k: [line(k, "theirs", "a@x"), "# no line", "", line(k, "ours", "!c@x,b@x,d@x")], "b@x"),
        (lambda k: [line(k, "theirs", "a@x"), line(k, "ours", "a@x")], "a@x"),
        (lambda k: [line(k, "ours", "*@x").replace("\n", "\r\n")], "*@x"),
    ],
)
def test_every_line_that_fits_counts(signed, keys, tmp_path, lines, signer):
    file = tmp_path / "allowed"
    file.write_text("\n".join(text.rstrip("\n") for text in lines(keys)) + "\n")
    assert Bundle.open(signed, file).signer == signer


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (lambda k: [line(k, "ours", "git@x", 'namespaces="git"')], "does not fit"),
        (lambda k: [line(k, "ours", "old@x", 'valid-before="20200101"')], "nobody whom|does not fit"),
        (lambda k: [line(k, "theirs"), "# " + line(k, "ours")], "nobody whom"),
        (lambda k: [], "nobody whom"),
    ],
)
def test_no_line_that_fits(signed, keys, tmp_path, lines, words):
    (tmp_path / "allowed").write_text("".join(lines(keys)))
    with pytest.raises(BundleError, match=words):
        Bundle.open(signed, tmp_path / "allowed")


def test_a_certificate_of_an_authority(bundle, keys, tmp_path):
    for name in ("authority", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    command = ["ssh-keygen", "-q", "-s", tmp_path / "authority", "-I", "id", "-n", "p@x", tmp_path / "user.pub"]
    subprocess.run(command, check=True)
    shutil.copy(tmp_path / "user", tmp_path / "user-cert")  # ssh-keygen finds the key beside its certificate.
    assert call("sign", bundle, "--key", tmp_path / "user-cert.pub").status == 0
    (tmp_path / "allowed").write_text(f"*@x cert-authority {(tmp_path / 'authority.pub').read_text()}")
    assert Bundle.open(bundle, tmp_path / "allowed").signer == "p@x"


@pytest.mark.parametrize("as_list", [True, False])
def test_a_revoked_key(signed, keys, tmp_path, as_list):
    shutil.copy(keys / "allowed", tmp_path)
    for key, opens in (("theirs", True), ("ours", False)):
        if as_list:
            command = ["ssh-keygen", "-q", "-k", "-f", tmp_path / "revoked_keys", keys / f"{key}.pub"]
            subprocess.run(command, check=True)
        else:
            shutil.copy(keys / f"{key}.pub", tmp_path / "revoked_keys")
        if opens:
            assert Bundle.open(signed, tmp_path / "allowed").signer == "builder@example.com"
            continue
        with pytest.raises(BundleError, match=r"builder@example.com with a key that .*revoked_keys revokes"):
            Bundle.open(signed, tmp_path / "allowed")


def test_a_list_of_revoked_keys_that_cannot_be_read_lets_nothing_through(signed, keys, tmp_path):
    shutil.copy(keys / "allowed", tmp_path)
    (tmp_path / "revoked_keys").symlink_to(tmp_path / "not mounted yet")
    with pytest.raises(InputError, match="no file of revoked keys is there"):
        Bundle.open(signed, tmp_path / "allowed")
    (tmp_path / "revoked_keys").unlink()
    (tmp_path / "revoked_keys").write_bytes(b"SSHKRL\n\0damaged")
    with pytest.raises(BundleError):
        Bundle.open(signed, tmp_path / "allowed")
