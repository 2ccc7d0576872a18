//! Where a row's `url` points: what to dial and what to ask there for.

/// A WebSocket endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `wss`: TLS lies between.
    pub secure: bool,
    /// Host name or address; IPv6 without brackets.
    pub host: String,
    /// Port, 443 or 80 unless the URL says otherwise.
    pub port: u16,
    /// Path and query, beginning with `/`.
    pub target: String,
}

impl Endpoint {
    /// Takes a `ws://` or `wss://` URL apart; `None` when it is not one, or has a user or fragment.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let (secure, rest) = match url.split_once("://")? {
            ("wss", rest) => (true, rest),
            ("ws", rest) => (false, rest),
            _ => return None,
        };
        if !rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return None;
        }
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() || host.contains('@') {
            return None;
        }
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None => Self::usual_port(secure),
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        Some(Self { secure, host: host.into(), port, target: format!("{slash}{target}") })
    }

    /// As it stands in a `Host` header: with a port only where it is not the usual one.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == Self::usual_port(self.secure) { host } else { format!("{host}:{}", self.port) }
    }

    fn usual_port(secure: bool) -> u16 {
        if secure { 443 } else { 80 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, secure, host, port, target, authority) in [
            (
                "wss://ws.okx.example:8443/ws/v5",
                true,
                "ws.okx.example",
                8443,
                "/ws/v5",
                "ws.okx.example:8443",
            ),
            ("wss://a.example", true, "a.example", 443, "/", "a.example"),
            ("wss://a.example:443/", true, "a.example", 443, "/", "a.example"),
            ("ws://127.0.0.1:9000?x=1", false, "127.0.0.1", 9000, "/?x=1", "127.0.0.1:9000"),
            ("ws://[::1]:80/p?q:/", false, "::1", 80, "/p?q:/", "[::1]"),
            ("ws://[::1]", false, "::1", 80, "/", "[::1]"),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            let expected = Endpoint { secure, host: host.into(), port, target: target.into() };
            assert_eq!(endpoint, expected, "{url}");
            assert_eq!(endpoint.authority(), authority, "{url}");
        }
    }

    #[test]
    fn what_is_no_websocket_url_is_refused() {
        for url in [
            "",
            "a.example",
            "https://a.example",
            "wss://",
            "wss:///p",
            "wss://:443",
            "wss://a:0",
            "wss://a:65536",
            "wss://a:b",
            "wss://u@a",
            "wss://[::1",
            "wss://[::1]x",
            "wss://[a]",
            "wss://a/ b",
            "wss://a/#f",
            "wss://a\r\nX: y",
        ] {
            assert_eq!(Endpoint::parse(url), None, "{url:?}");
        }
    }
}
