"""What the settings of a box mean to the programs that run on it: their config files, as texts."""

import hashlib
from collections.abc import Iterable

from bench.appliance.settings import BenchConfig, FixedNetwork, Metrics, Wifi

SSH_PORT = 22
USER = "bench"
AUTHORIZED_KEYS = "etc/ssh/authorized_keys/%u"
SSH_SERVER = "etc/ssh/sshd_config.d/dertwin.conf"
FIREWALL = "etc/nftables.conf"
WEB_CONFIG = "etc/dertwin-box/web/web.yaml"
SERVICE_OPTIONS = "etc/dertwin-box/service.env"
_WIFI = "etc/wpa_supplicant/wpa_supplicant-wlan0.conf"
SECRETS = (_WIFI,)
"""What only root may read."""

DEFAULT_TIME_SOURCE = "pool 2.debian.pool.ntp.org iburst"


def system_files(config: BenchConfig, name: str) -> dict[str, str]:
    """Return the texts of config files by their paths below the root; those in SECRETS have passwords."""
    files = {
        "etc/hostname": f"{name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {name}\n",
        "etc/timezone": f"{config.timezone}\n",
        "etc/systemd/network/10-dertwin-ethernet.network": _ethernet(config.network),
        "etc/chrony/sources.d/dertwin.sources": _time_sources(config.time_servers),
        AUTHORIZED_KEYS.replace("%u", USER): "".join(f"{key}\n" for key in config.ssh_keys),
        SERVICE_OPTIONS: _options(config.metrics),
    }
    if config.wifi:
        files["etc/systemd/network/10-dertwin-wifi.network"] = _network("Type=wlan", _DYNAMIC)
        files[_WIFI] = _wpa(config.wifi)
    return files


# Without a DHCP server the box still has a link-local address, so that a laptop on a plain cable finds it.
# The client identifier is the adapter's: the lease, and so the address, stays over reboots and updates.
_DYNAMIC = """\
DHCP=yes
LinkLocalAddressing=yes

[DHCPv4]
ClientIdentifier=mac
UseDomains=yes
"""


def _ethernet(network: FixedNetwork | str) -> str:
    if not isinstance(network, FixedNetwork):
        return _network("Type=ether", _DYNAMIC)
    lines = [f"Address={network.address}"]
    lines += [f"Gateway={network.gateway}"] if network.gateway else []
    lines += [f"DNS={server}" for server in network.dns]
    # A site that names the address must find it at boot, cable or not.
    lines += ["LinkLocalAddressing=ipv6", "ConfigureWithoutCarrier=yes"]
    return _network("Type=ether", "".join(f"{line}\n" for line in lines))


def _network(match: str, lines: str) -> str:
    return f"[Match]\n{match}\n\n[Network]\nMulticastDNS=yes\n{lines}"


def _wpa(wifi: Wifi) -> str:
    # As hexadecimal digits neither name nor password needs any quoting.
    key = hashlib.pbkdf2_hmac("sha1", wifi.psk.encode(), wifi.ssid.encode(), 4096, 32)
    return f"""\
country={wifi.country}
ctrl_interface=DIR=/run/wpa_supplicant
network={{
    ssid={wifi.ssid.encode().hex()}
    scan_ssid=1
    key_mgmt=WPA-PSK
    psk={key.hex()}
}}
"""


def _time_sources(servers: Iterable[str]) -> str:
    lines = [f"server {server} iburst" for server in servers] or [DEFAULT_TIME_SOURCE]
    return "".join(f"{line}\n" for line in lines)


def _options(metrics: Metrics) -> str:
    host = f"[{metrics.address}]" if ":" in metrics.address else metrics.address
    options = f"--listen-metrics {host}:{metrics.port}"
    if metrics.web_config:
        options += f" --web-config /{WEB_CONFIG}"
    return f'DERTWIN_OPTIONS="{options}"\n'


def ssh_server(host_key: str, keys: str) -> str:
    """Return the part of sshd's config that is ours: who may log in, with keys (path with %u) only."""
    return f"""\
HostKey {host_key}
AuthorizedKeysFile {keys}
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
AllowUsers {USER}
AllowAgentForwarding no
X11Forwarding no
UseDNS no
"""


def firewall(tcp_ports: Iterable[int]) -> str:
    """Return nftables rules that let in SSH, mDNS, ping, replies, and TCP to what is served."""
    ports = ", ".join(map(str, sorted({SSH_PORT, *tcp_ports})))
    return f"""\
#!/usr/sbin/nft -f
flush ruleset

table inet dertwin {{
    chain input {{
        type filter hook input priority filter; policy drop;
        ct state vmap {{ established : accept, related : accept, invalid : drop }}
        iif "lo" accept
        meta l4proto {{ icmp, ipv6-icmp }} accept
        udp dport {{ 68, 546 }} accept
        ip daddr 224.0.0.251 udp dport 5353 accept
        ip6 daddr ff02::fb udp dport 5353 accept
        tcp dport {{ {ports} }} accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
    }}
}}
"""
