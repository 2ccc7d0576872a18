//! Two network namespaces with a veth pair between them: a server's machine and a client's.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::fs::File;
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

/// The server's end.
pub const SERVER_IF: &str = "srv0";
/// The client's end.
pub const CLIENT_IF: &str = "cli0";

/// Passes everything up.
const PASS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/pass.bpf.o");

/// The namespaces are there as long as this is. Needs root; without it the tests fail.
pub struct Veth {
    server: String,
    client: String,
}

impl Veth {
    /// Makes them, with addresses of both families. The client's end takes what the server's sends back
    /// from its driver.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |side: &str| format!("beast-{}-{number}-{side}", std::process::id());
        let veth = Self { server: name("s"), client: name("c") };
        let (server, client) = (&veth.server, &veth.client);
        ip(&["netns", "add", server]);
        ip(&["netns", "add", client]);
        ip(&[
            "link", "add", SERVER_IF, "netns", server, "type", "veth", "peer", "name", CLIENT_IF, "netns",
            client,
        ]);
        for (namespace, interface, v4, v6) in [
            (server, SERVER_IF, "10.77.0.1/24", "fd77::1/64"),
            (client, CLIENT_IF, "10.77.0.2/24", "fd77::2/64"),
        ] {
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
            ip(&["-n", namespace, "address", "add", v4, "dev", interface]);
            ip(&["-n", namespace, "address", "add", v6, "dev", interface, "nodad"]);
            ip(&["-n", namespace, "link", "set", interface, "up"]);
        }
        ip(&["-n", client, "link", "set", "dev", CLIENT_IF, "xdpdrv", "obj", PASS, "sec", "xdp"]);
        veth
    }

    /// The server's addresses.
    pub fn server_ips() -> [IpAddr; 2] {
        ["10.77.0.1", "fd77::1"].map(|ip| ip.parse().unwrap())
    }

    /// Moves the calling thread, and all it starts from now on, to the server's machine.
    pub fn enter_server(&self) {
        enter(&self.server);
    }

    /// Moves the calling thread to the client's machine.
    pub fn enter_client(&self) {
        enter(&self.client);
    }

    /// What both machines have counted that may have become of a datagram, for the message of a test
    /// that misses one: the ends of the pair, the neighbours, and the kernel's own counters of UDP.
    pub fn counts(&self) -> String {
        let script = "ip -s link; ip -s neigh; grep ^Udp: /proc/net/snmp; cat /proc/net/udp; \
                      cat /proc/net/softnet_stat";
        let of = |namespace: &String| {
            let output = Command::new("ip").args(["netns", "exec", namespace, "sh", "-c", script]).output();
            output.map_or_else(|e| e.to_string(), |o| String::from_utf8_lossy(&o.stdout).into_owned())
        };
        format!("the server's machine:\n{}\nthe client's:\n{}", of(&self.server), of(&self.client))
    }

    /// Switches a feature of the client's end, as ethtool names it.
    pub fn client_feature(&self, feature: &str, on: bool) {
        let state = if on { "on" } else { "off" };
        run(Command::new("nsenter").args([
            &format!("--net=/run/netns/{}", self.client),
            "ethtool",
            "-K",
            CLIENT_IF,
            feature,
            state,
        ]));
    }
}

/// What only benches need.
impl Veth {
    /// Gives the server's end the program that passes everything up, so that its driver receives.
    pub fn server_passes(&self) {
        ip(&["-n", &self.server, "link", "set", "dev", SERVER_IF, "xdpdrv", "obj", PASS, "sec", "xdp"]);
    }

    /// Takes the program off the client's end.
    pub fn client_empty(&self) {
        ip(&["-n", &self.client, "link", "set", "dev", CLIENT_IF, "xdpdrv", "off"]);
    }

    /// Has both ends receive in threads of their own.
    pub fn thread_napi(&self) {
        for (namespace, interface) in [(&self.server, SERVER_IF), (&self.client, CLIENT_IF)] {
            let switch = format!("echo 1 > /sys/class/net/{interface}/threaded");
            run(Command::new("ip").args(["netns", "exec", namespace, "sh", "-c", &switch]));
        }
    }

    /// The server's hardware address.
    pub fn server_hardware(&self) -> [u8; 6] {
        let path = format!("cat /sys/class/net/{SERVER_IF}/address");
        let output =
            Command::new("ip").args(["netns", "exec", &self.server, "sh", "-c", &path]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut bytes = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap());
        std::array::from_fn(|_| bytes.next().unwrap())
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.client] {
            let _gone = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}

fn ip(args: &[&str]) {
    run(Command::new("ip").args(args));
}

fn run(command: &mut Command) {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = command.env("PATH", path).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}, which needs root: {said}");
}
