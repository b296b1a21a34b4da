from __future__ import annotations

import datetime
import os
import pickle
import socket
import ssl
import threading

import dask
import pytest
from distributed.security import Security

from gpumpi.cluster import security as module
from gpumpi.cluster.security import (
    Credentials,
    JobSecurity,
    load_job_security,
    set_job_credentials,
)

ROLES = ["client", "scheduler", "worker"]


@pytest.fixture(scope="module")
def credentials() -> Credentials:
    return Credentials.make()


@pytest.fixture(autouse=True)
def kept_credentials():
    """Put the process's credentials back."""
    before = module._credentials, module._address
    yield
    set_job_credentials(*before)


# -------------------------------------------------------------- the certificate


@pytest.fixture(scope="module")
def certificate(credentials):
    from cryptography import x509

    return x509.load_pem_x509_certificate(credentials.certificate.encode())


def test_the_certificate_is_valid_from_ten_minutes_ago(certificate) -> None:
    now = datetime.datetime.now(tz=datetime.UTC)
    age = now - certificate.not_valid_before_utc
    assert datetime.timedelta(minutes=10) <= age < datetime.timedelta(minutes=12)


def test_the_certificate_outlives_any_job(certificate) -> None:
    rest = certificate.not_valid_after_utc - datetime.datetime.now(tz=datetime.UTC)
    assert rest > datetime.timedelta(days=300)


def test_key_and_certificate_belong_together(credentials, certificate) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(credentials.key.encode(), password=None)
    assert key.public_key() == certificate.public_key()
    assert key.curve.name == "secp256r1"


def test_every_job_has_a_key_and_a_serial_number_of_its_own(
    credentials, certificate
) -> None:
    from cryptography import x509

    other = Credentials.make()
    assert other.key != credentials.key
    found = x509.load_pem_x509_certificate(other.certificate.encode())
    assert found.serial_number != certificate.serial_number


def test_one_text_holds_both(credentials) -> None:
    assert credentials.pem == credentials.key + credentials.certificate
    assert credentials.pem.count("-----BEGIN") == 2


# ------------------------------------------------------------------ no secrets


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, ascii])
def test_no_text_of_them_shows_the_key(credentials, show) -> None:
    middle = credentials.key.splitlines()[1]
    assert len(middle) > 20
    for shown in (credentials, JobSecurity(credentials), [credentials]):
        assert middle not in show(shown)
        assert "PRIVATE" not in show(shown)


def test_the_html_of_a_notebook_does_not_show_the_key(credentials) -> None:
    pytest.importorskip("jinja2")
    shown = JobSecurity(credentials)._repr_html_()
    assert "PRIVATE" not in shown
    assert credentials.key.splitlines()[1] not in shown


def test_an_error_with_credentials_in_it_does_not_show_the_key(credentials) -> None:
    with pytest.raises(TypeError) as caught:
        len(credentials)  # type: ignore[arg-type]
    assert "PRIVATE" not in str(caught.value)


# ---------------------------------------------------------------- no files


def test_contexts_are_made_without_a_file_on_any_disk(run_python) -> None:
    code = """
        import os, sys, tempfile
        from gpumpi.cluster.security import Credentials, JobSecurity
        credentials = Credentials.make()
        JobSecurity(credentials).get_connection_args("client")  # imports are done
        tempfile.tempdir = "/no/such/folder"
        opened = []
        def watch(event, args):
            if event == "open" and isinstance(args[2], int):
                if args[2] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                    opened.append(args)
            elif event.startswith(("tempfile.", "os.mkdir", "os.rename")):
                opened.append((event, args))
        sys.addaudithook(watch)
        before = sorted(os.listdir("/proc/self/fd"))
        for make in (Credentials.make, lambda: credentials):
            security = JobSecurity(make())
            for role in ("client", "scheduler", "worker"):
                assert security.get_connection_args(role)["ssl_context"]
            for role in ("scheduler", "worker"):
                assert security.get_listen_args(role)["ssl_context"]
        assert sorted(os.listdir("/proc/self/fd")) == before
        assert opened == [], opened
        # The watch itself works.
        open(sys.argv[1], "w").close()
        assert len(opened) == 1
    """
    ended = run_python(code, os.devnull)
    assert (ended.returncode, ended.stderr) == (0, "")


# -------------------------------------------------------------- the handshake


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> list[object]:
    """What each end has after a handshake and one byte each way."""
    ends = socket.socketpair()
    found: list[object] = [None, None]

    def talk(number: int, context: ssl.SSLContext) -> None:
        ends[number].settimeout(10)
        try:
            with context.wrap_socket(ends[number], server_side=bool(number)) as tls:
                tls.sendall(b"x")
                if tls.recv(1) == b"x":
                    found[number] = tls.version()
        except OSError as error:
            found[number] = error
        finally:
            ends[number].close()

    threads = [
        threading.Thread(target=talk, args=each) for each in ((0, client), (1, server))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def contexts(ours: Security, theirs: Security, role: str = "client"):
    return (
        ours.get_connection_args(role)["ssl_context"],
        theirs.get_listen_args("scheduler")["ssl_context"],
    )


@pytest.mark.parametrize("role", ROLES)
def test_members_of_one_job_understand_each_other(credentials, role: str) -> None:
    ours, theirs = JobSecurity(credentials), JobSecurity(credentials)
    assert shake_hands(*contexts(ours, theirs, role)) == ["TLSv1.3", "TLSv1.3"]


def test_members_of_two_jobs_do_not(credentials) -> None:
    ours, theirs = JobSecurity(Credentials.make()), JobSecurity(credentials)
    assert all(isinstance(end, OSError) for end in shake_hands(*contexts(ours, theirs)))


def test_a_client_without_credentials_is_refused(credentials) -> None:
    anybody = ssl.create_default_context()
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    _, server = contexts(JobSecurity(credentials), JobSecurity(credentials))
    _, server_end = shake_hands(anybody, server)
    assert isinstance(server_end, ssl.SSLError)
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in str(server_end)


def test_a_server_that_only_holds_the_certificate_is_no_member(credentials) -> None:
    other = Credentials.make()
    mixed = Credentials(key=other.key, certificate=other.certificate)
    client, _ = contexts(JobSecurity(credentials), JobSecurity(credentials))
    _, server = contexts(JobSecurity(mixed), JobSecurity(mixed))
    client_end, _ = shake_hands(client, server)
    assert isinstance(client_end, ssl.SSLCertVerificationError)


def test_old_versions_of_tls_are_not_spoken(credentials) -> None:
    client, server = contexts(JobSecurity(credentials), JobSecurity(credentials))
    client.minimum_version = ssl.TLSVersion.TLSv1_2
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert all(isinstance(end, OSError) for end in shake_hands(client, server))


def test_a_key_of_another_certificate_is_refused(credentials) -> None:
    mixed = Credentials(key=Credentials.make().key, certificate=credentials.certificate)
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        JobSecurity(mixed).get_connection_args("client")


# ----------------------------------------------------------- Dask's view of it


def test_encryption_is_required_for_every_role(credentials) -> None:
    security = JobSecurity(credentials)
    assert isinstance(security, Security)
    for role in ROLES:
        assert security.get_connection_args(role)["require_encryption"] is True
        assert security.get_tls_config_for_role(role)["key"] == credentials.key


def test_it_goes_through_pickle_and_still_opens_the_door(credentials) -> None:
    copy = pickle.loads(pickle.dumps(JobSecurity(credentials)))
    assert isinstance(copy, JobSecurity)
    found = shake_hands(*contexts(copy, JobSecurity(credentials)))
    assert found == ["TLSv1.3", "TLSv1.3"]


ADDRESS = "tls://10.0.0.1:1"


def test_a_client_of_the_job_gets_its_security(credentials) -> None:
    set_job_credentials(credentials, ADDRESS)
    found = load_job_security({"address": ADDRESS})
    assert isinstance(found, JobSecurity)
    assert found.tls_client_key == credentials.key


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tls://10.0.0.1:2", ""])
def test_a_client_of_another_cluster_gets_none(credentials, address) -> None:
    set_job_credentials(credentials, ADDRESS)
    assert load_job_security({"address": address}) is None


def test_without_credentials_a_client_gets_no_security(credentials) -> None:
    set_job_credentials(credentials, ADDRESS)
    set_job_credentials(None)
    assert load_job_security({"address": ADDRESS}) is None


def test_dask_finds_the_loader_by_the_name_that_jobs_set(credentials) -> None:
    from distributed.client import _maybe_call_security_loader

    set_job_credentials(credentials, ADDRESS)
    name = "gpumpi.cluster.security.load_job_security"
    with dask.config.set({"distributed.client.security-loader": name}):
        found = _maybe_call_security_loader(ADDRESS)
    assert isinstance(found, JobSecurity)
    assert found.tls_ca_file == credentials.certificate
