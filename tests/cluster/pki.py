"""Certificates, keys and kubeconfigs of a cluster, made once and kept in its directory.

Everything is idempotent: a pair that exists, names the same hosts and groups and was signed by the present
authority is kept.
"""

import base64
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = timedelta(days=365)
_RENEWED_BEFORE_END = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """PEM files: a certificate (for the service-account pair: the public key) and its private key."""

    certificate: Path
    key: Path


def certificate_authority(directory: Path, name: str = "ca") -> KeyPair:
    """Return the self-signed authority in `directory`, made when it is absent."""
    pair = _pair(directory, name)
    subject = _subject(f"tailwise-{name}")
    if _is_current(pair, subject, (), None):
        return pair
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(True, False, True, False, False, True, True, False, False)
    builder = _builder(subject, subject, key.public_key(), key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    _write(pair, builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key)
    return pair


def serving(directory: Path, name: str, authority: KeyPair, hosts: Sequence[str]) -> KeyPair:
    """Return a server's pair for the DNS names and addresses in `hosts`."""
    return _signed(
        directory, name, authority, _subject(name), hosts=tuple(hosts), usage=ExtendedKeyUsageOID.SERVER_AUTH
    )


def client(directory: Path, name: str, authority: KeyPair, user: str, groups: Sequence[str] = ()) -> KeyPair:
    """Return a client's pair: Kubernetes reads the user from CN and the groups from O."""
    return _signed(
        directory, name, authority, _subject(user, groups), hosts=(), usage=ExtendedKeyUsageOID.CLIENT_AUTH
    )


def service_account_keys(directory: Path, name: str = "service-account") -> KeyPair:
    """Return the public and private key that sign service accounts' tokens."""
    pair = KeyPair(directory / f"{name}.pub", directory / f"{name}.key")
    if not (pair.certificate.exists() and pair.key.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        _write_private(pair.key, _private_pem(key))
        pair.certificate.write_bytes(public)
    return pair


def kubeconfig(path: Path, server: str, authority: KeyPair, pair: KeyPair, cluster: str = "tailwise") -> Path:
    """Write a kubeconfig that holds everything itself (no paths), so that a host or a pod can have a copy."""
    encoded = _base64(authority.certificate)
    user = {"client-certificate-data": _base64(pair.certificate), "client-key-data": _base64(pair.key)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": cluster,
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": encoded}}],
        "users": [{"name": cluster, "user": user}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
    }
    _write_private(path, yaml.safe_dump(content, sort_keys=False).encode())
    return path


def _signed(
    directory: Path,
    name: str,
    authority: KeyPair,
    subject: x509.Name,
    *,
    hosts: tuple[str, ...],
    usage: x509.ObjectIdentifier,
) -> KeyPair:
    pair = _pair(directory, name)
    if _is_current(pair, subject, hosts, authority):
        return pair
    issuer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    signer = serialization.load_pem_private_key(authority.key.read_bytes(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{authority.key} holds no elliptic-curve key: remove its directory and try again")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(subject, issuer.subject, key.public_key(), signer.public_key())
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if hosts:
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    _write(pair, builder.sign(signer, hashes.SHA256()), key)
    return pair


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(minutes=5),
        not_valid_after=now + _LIFETIME,
    )
    # RFC 5280, 4.2.1.1 and 4.2.1.2: strict verifiers (Python 3.13 is one) ask for both identifiers.
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key)
    return builder.add_extension(authority, critical=False)


def _is_current(pair: KeyPair, subject: x509.Name, hosts: tuple[str, ...], authority: KeyPair | None) -> bool:
    if not (pair.certificate.exists() and pair.key.exists()):
        return False
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    if (
        certificate.subject != subject
        or certificate.not_valid_after_utc - datetime.now(UTC) < _RENEWED_BEFORE_END
    ):
        return False
    if authority is not None:
        try:
            certificate.verify_directly_issued_by(
                x509.load_pem_x509_certificate(authority.certificate.read_bytes())
            )
        except Exception:  # any of several types; each means that another authority signed it
            return False
    return _hosts(certificate) == set(hosts)


def _hosts(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _subject(name: str, groups: Sequence[str] = ()) -> x509.Name:
    organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organisations, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pair(directory: Path, name: str) -> KeyPair:
    return KeyPair(directory / f"{name}.crt", directory / f"{name}.key")


def _write(pair: KeyPair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    _write_private(pair.key, _private_pem(key))
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
