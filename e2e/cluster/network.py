"""The pod network: one CNI file per node, and a route to each other node's pods."""

from __future__ import annotations

import json
from dataclasses import dataclass

from e2e.cluster.engine import docker
from e2e.cluster.kube import kubectl

POD_SUBNET = "10.244.0.0/16"


@dataclass(frozen=True)
class Node:
    """A node's name (also its container's), the subnet of its pods, and its address."""

    name: str
    subnet: str
    address: str


def nodes() -> list[Node]:
    """The cluster's nodes; their subnets are known once the controller manager has assigned them."""
    items = json.loads(kubectl("get", "nodes", "--output=json"))["items"]
    return [
        Node(
            item["metadata"]["name"],
            item["spec"].get("podCIDR", ""),
            next(a["address"] for a in item["status"]["addresses"] if a["type"] == "InternalIP"),
        )
        for item in items
    ]


def connect(members: list[Node]) -> None:
    """Give every node its pod network; doing it again changes nothing."""
    for node in members:
        docker("exec", node.name, "sh", "-ec", _script(node, members))


def _script(node: Node, members: list[Node]) -> str:
    lines = [f"ip route replace {other.subnet} via {other.address}" for other in members if other != node]
    # pods reach addresses outside the cluster under their node's
    rule = f"POSTROUTING -s {POD_SUBNET} ! -d {POD_SUBNET} -m comment --comment pods-outward -j MASQUERADE"
    lines.append(f"iptables -w -t nat -C {rule} 2>/dev/null || iptables -w -t nat -A {rule}")
    # written in place: containerd 1.6 takes no notice of a file moved into its folder
    lines.append("mkdir -p /etc/cni/net.d")
    file = "/etc/cni/net.d/10-penstock.conflist"
    wanted = json.dumps(_conflist(node.subnet), indent=1)
    lines.append(f"wanted=$(cat <<'END'\n{wanted}\nEND\n)")
    lines.append(f'[ "$(cat {file} 2>/dev/null)" = "$wanted" ] || printf "%s\\n" "$wanted" > {file}')
    return "\n".join(lines)


def _conflist(subnet: str) -> dict[str, object]:
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                # point to point: kind's own node image has no bridge plugin
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-addresses",
                    "ranges": [[{"subnet": subnet}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
