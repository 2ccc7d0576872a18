//! The kinds of value a setting can have: how each is read and how it is shown.

use std::net::IpAddr;
use std::path::PathBuf;

use toml::Value;

use crate::store::StoreUrl;
use crate::xdp::AttachMode;

/// A value before it is checked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'a> {
    /// From the environment or a flag.
    Text(&'a str),
    /// From a file.
    Toml(&'a Value),
}

impl<'a> Raw<'a> {
    fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Toml(value) => value.as_str(),
        }
    }

    /// As it was written, for messages.
    pub(super) fn shown(self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Toml(value) => value.to_string(),
        }
    }
}

/// A type that settings may have.
pub(super) trait Field: Sized {
    /// `None` when it is not of this type.
    fn read(raw: Raw<'_>) -> Option<Self>;

    /// As a file would hold it; `None` when it is unset.
    fn show(&self) -> Option<Value>;
}

macro_rules! number {
    ($($int:ty)+) => { $(
        impl Field for $int {
            fn read(raw: Raw<'_>) -> Option<Self> {
                match raw {
                    Raw::Text(text) => text.replace('_', "").parse().ok(),
                    Raw::Toml(value) => value.as_integer()?.try_into().ok(),
                }
            }

            fn show(&self) -> Option<Value> {
                i64::try_from(*self).ok().map(Value::Integer)
            }
        }
    )+ };
}

number!(u16 u32 u64 usize);

impl Field for bool {
    fn read(raw: Raw<'_>) -> Option<Self> {
        match raw {
            Raw::Text("true" | "1" | "yes" | "on") => Some(true),
            Raw::Text("false" | "0" | "no" | "off") => Some(false),
            Raw::Text(_) => None,
            Raw::Toml(value) => value.as_bool(),
        }
    }

    fn show(&self) -> Option<Value> {
        Some(Value::Boolean(*self))
    }
}

impl Field for PathBuf {
    fn read(raw: Raw<'_>) -> Option<Self> {
        raw.text().filter(|text| !text.is_empty() && !text.contains('\0')).map(Self::from)
    }

    fn show(&self) -> Option<Value> {
        Some(Value::String(self.display().to_string()))
    }
}

impl Field for Option<PathBuf> {
    fn read(raw: Raw<'_>) -> Option<Self> {
        PathBuf::read(raw).map(Some)
    }

    fn show(&self) -> Option<Value> {
        self.as_ref().and_then(PathBuf::show)
    }
}

impl Field for Option<StoreUrl> {
    fn read(raw: Raw<'_>) -> Option<Self> {
        StoreUrl::parse(raw.text()?).map(Some)
    }

    /// Without its password.
    fn show(&self) -> Option<Value> {
        self.as_ref().map(|url| Value::String(url.shown()))
    }
}

impl Field for Vec<IpAddr> {
    fn read(raw: Raw<'_>) -> Option<Self> {
        let parts: Vec<&str> = match raw {
            Raw::Toml(Value::Array(array)) => array.iter().map(Value::as_str).collect::<Option<_>>()?,
            _ => raw.text()?.split(',').collect(),
        };
        let mut addresses = Self::new();
        for part in parts {
            let part = part.trim();
            let address = part.strip_prefix('[').and_then(|p| p.strip_suffix(']')).unwrap_or(part);
            let address = address.parse().ok()?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        (!addresses.is_empty()).then_some(addresses)
    }

    fn show(&self) -> Option<Value> {
        Some(Value::Array(self.iter().map(|a| Value::String(a.to_string())).collect()))
    }
}

macro_rules! choice {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident = $text:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $variant_doc])+ $variant,)+ }

        impl $name {
            /// As it is written in a configuration.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl Field for $name {
            fn read(raw: Raw<'_>) -> Option<Self> {
                let text = raw.text()?;
                [$(Self::$variant,)+].into_iter().find(|choice| choice.as_str().eq_ignore_ascii_case(text))
            }

            fn show(&self) -> Option<Value> {
                Some(Value::String(self.as_str().to_owned()))
            }
        }
    };
}

choice! {
    /// What part of the service a process is.
    Role {
        /// Answers prices.
        AppServer = "APP_SERVER",
        /// Reports usage.
        ReportServer = "REPORT_SERVER",
        /// Both.
        AppReportServer = "APP_REPORT_SERVER",
        /// Delivers webhooks.
        WebhookServer = "WEBHOOK_SERVER",
    }
}

impl Role {
    /// Whether it answers prices.
    #[must_use]
    pub fn answers(self) -> bool {
        matches!(self, Self::AppServer | Self::AppReportServer)
    }

    /// Whether it reports usage.
    #[must_use]
    pub fn reports(self) -> bool {
        matches!(self, Self::ReportServer | Self::AppReportServer)
    }
}

choice! {
    /// Which engine moves the bytes.
    IoChoice {
        /// The best one that a probe finds working.
        Auto = "auto",
        /// io_uring, or an error.
        Uring = "uring",
        /// epoll.
        Portable = "portable",
    }
}

choice! {
    /// Which shard gets a datagram.
    Steer {
        /// The better one of the other two for these shards and addresses.
        Auto = "auto",
        /// The one on the core that received it.
        Cpu = "cpu",
        /// The one that the kernel's hash of the peer's address names.
        Hash = "hash",
    }
}

choice! {
    /// How much is logged.
    LogLevel {
        /// Nothing.
        Off = "off",
        /// What went wrong.
        Error = "error",
        /// And what may go wrong.
        Warn = "warn",
        /// And what changed.
        Info = "info",
        /// And why.
        Debug = "debug",
        /// And every step.
        Trace = "trace",
    }
}

/// An interface on which the kernel answers, as `IFACE` or `IFACE:MODE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpOn {
    /// Name of the interface.
    pub interface: String,
    /// Where on it.
    pub mode: AttachMode,
}

/// Longest name of an interface: the kernel's `IFNAMSIZ` less its zero.
const INTERFACE_LEN_MAX: usize = 15;

impl Field for Option<XdpOn> {
    fn read(raw: Raw<'_>) -> Option<Self> {
        let text = raw.text()?;
        let modes = [AttachMode::Auto, AttachMode::Native, AttachMode::Generic];
        let named = text.rsplit_once(':').and_then(|(interface, mode)| {
            Some((interface, *modes.iter().find(|known| known.to_string().eq_ignore_ascii_case(mode))?))
        });
        let (interface, mode) = named.unwrap_or((text, AttachMode::Auto));
        let is_name = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
        let fits = (1..=INTERFACE_LEN_MAX).contains(&interface.len()) && interface.bytes().all(is_name);
        fits.then(|| Some(XdpOn { interface: interface.to_owned(), mode }))
    }

    fn show(&self) -> Option<Value> {
        self.as_ref().map(|on| Value::String(format!("{}:{}", on.interface, on.mode)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_toml_read_the_same() {
        assert_eq!(u64::read(Raw::Text("32_000")), Some(32_000));
        assert_eq!(u16::read(Raw::Text("65536")), None);
        assert_eq!(u16::read(Raw::Toml(&Value::Integer(-1))), None);
        assert_eq!(u16::read(Raw::Toml(&Value::String("80".into()))), None);
        assert_eq!(bool::read(Raw::Text("on")), Some(true));
        assert_eq!(bool::read(Raw::Text("TRUE?")), None);
        assert_eq!(Role::read(Raw::Text("report_server")), Some(Role::ReportServer));
        assert_eq!(IoChoice::read(Raw::Text("epoll")), None);
        assert_eq!(PathBuf::read(Raw::Text("")), None);
    }

    #[test]
    fn an_interface_may_name_its_mode() {
        let read = |text| Option::<XdpOn>::read(Raw::Text(text)).flatten();
        let on = |interface: &str, mode| Some(XdpOn { interface: interface.into(), mode });
        assert_eq!(read("eth0"), on("eth0", AttachMode::Auto));
        assert_eq!(read("eth0:native"), on("eth0", AttachMode::Native));
        assert_eq!(read("bond0.7:GENERIC"), on("bond0.7", AttachMode::Generic));
        for wrong in ["", ":native", "eth0:fast", "a/b", "a name", "much-too-long-a-name"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(read("eth0").show(), Some(Value::String("eth0:auto".into())));
    }

    #[test]
    fn address_lists_take_brackets_and_lose_repeats() {
        let read = |text| Vec::<IpAddr>::read(Raw::Text(text));
        let shown = |text| read(text).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown("127.0.0.1, [::1],::1"), ["127.0.0.1", "::1"]);
        assert_eq!(read(""), None);
        assert_eq!(read("localhost"), None);
        let array = Value::Array(vec![Value::String("::".into()), Value::Integer(4)]);
        assert_eq!(Vec::<IpAddr>::read(Raw::Toml(&array)), None);
    }
}
