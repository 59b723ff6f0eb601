"""A certificate of a test's own, by openssl(1), and a server that shows it."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

NEW = (
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
    *("-nodes", "-days", "2", "-subj", "/CN=test", "-keyout", "key.pem", "-out", "cert.pem"),
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Signed by itself, and so its own authority: ``file`` is what a client has to trust."""

    file: Path
    key: Path

    def server(self, *protocols: str) -> ssl.SSLContext:
        """``protocols`` are those of ALPN (RFC 7301)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        context.set_alpn_protocols(protocols)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))


def certificate(folder: Path, *names: str) -> Certificate:
    """For hosts and addresses: ``DNS:files.example``, ``IP:127.0.0.1``."""
    extension = f"subjectAltName={','.join(names)}"
    made = subprocess.run(
        [*NEW, "-addext", extension], cwd=folder, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return Certificate(folder / "cert.pem", folder / "key.pem")
