"""Credentials of one job: one key and certificate, which only its ranks hold.

Who holds the key is a member; there is no other identity. The certificate is its
own authority, as in ``distributed.Security.temporary``, with three differences: it
is valid from ten minutes ago, since clocks of nodes differ; its key is on the
curve P-256, which is made in a millisecond; and OpenSSL reads it from memory
instead of from a temporary file on what may be a shared disk.
"""

from __future__ import annotations

import datetime
import os
import ssl
from dataclasses import dataclass
from typing import Any

from distributed.security import Security

from gpumpi.features import load

__all__ = ["Credentials", "JobSecurity", "load_job_security", "set_job_credentials"]

_CLOCK_MARGIN = datetime.timedelta(minutes=10)
_VALIDITY = datetime.timedelta(days=365)


@dataclass(frozen=True, repr=False)
class Credentials:
    """Key and certificate as PEM text. Their repr never shows them."""

    key: str
    certificate: str

    @classmethod
    def make(cls) -> Credentials:
        """Make new ones, in memory.

        Raises
        ------
        FeatureUnavailableError
            When ``cryptography`` is not installed.
        """
        load("cryptography", why="to make the credentials of this job")
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "gpumpi job")]
        )
        now = datetime.datetime.now(tz=datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_MARGIN)
            .not_valid_after(now + _VALIDITY)
            .sign(key, hashes.SHA256())
        )
        return cls(
            key=key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode(),
            certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        )

    @property
    def pem(self) -> str:
        """Both in one text, as OpenSSL reads it from one file."""
        return self.key + self.certificate


class JobSecurity(Security):  # type: ignore[misc]
    """Dask's security object for the members of one job.

    Encryption is required, and no role differs from another.
    """

    def __init__(self, credentials: Credentials) -> None:
        roles = ("client", "scheduler", "worker")
        super().__init__(
            require_encryption=True,
            tls_ca_file=credentials.certificate,
            **{f"tls_{role}_key": credentials.key for role in roles},
            **{f"tls_{role}_cert": credentials.certificate for role in roles},
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle, for the pipe to a supervised worker."""
        return _restore, (self.tls_client_key, self.tls_client_cert)

    def _get_tls_context(
        self, tls: dict[str, str], purpose: ssl.Purpose
    ) -> ssl.SSLContext:
        """Make the context as distributed does, without a file on any disk.

        Overrides ``distributed.Security`` (2026.7.1), which writes key and
        certificate into a temporary folder for OpenSSL to read.
        """
        context = ssl.create_default_context(purpose=purpose, cadata=tls["ca_file"])
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        memory = os.memfd_create("gpumpi", os.MFD_CLOEXEC)
        try:
            os.write(memory, (tls["key"] + tls["cert"]).encode())
            context.load_cert_chain(f"/proc/self/fd/{memory}")
        finally:
            os.close(memory)
        context.verify_mode = ssl.CERT_REQUIRED
        # Members are known by the key, not by a name that DNS gives them.
        context.check_hostname = False
        # The certificate is its own authority, without an extension that says so.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def _restore(key: str, certificate: str) -> JobSecurity:
    return JobSecurity(Credentials(key=key, certificate=certificate))


_credentials: Credentials | None = None
_address = ""


def set_job_credentials(credentials: Credentials | None, address: str = "") -> None:
    """Keep the credentials for clients of this address that are opened later."""
    global _credentials, _address
    _credentials, _address = credentials, address


def load_job_security(info: dict[str, Any]) -> JobSecurity | None:
    """Answer ``distributed.client.security-loader``: a bare ``Client()`` asks here.

    Clients of other clusters (a LocalCluster in the script) get nothing.
    """
    if _credentials is None or info["address"] != _address:
        return None
    return JobSecurity(_credentials)
