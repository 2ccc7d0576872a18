//! What an exchange can do wrong on command, and what it does not do wrong meanwhile.

use std::sync::Arc;
use std::time::Duration;

use beast::exchange_sim::{Control, Exchange, Sim, SimOptions};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::client::{
    TIME_NS, case, cases, connect, drain, get, next, quiet, run, subscribed, text, text_with, trades, until,
};

#[test]
fn a_cut_ends_every_connection_without_a_close_frame() {
    run(async {
        let sim = Sim::start(quiet()).unwrap();
        let case = case(Exchange::Okx);
        let mut first = subscribed(&sim, &case).await;
        let mut second = subscribed(&sim, &case).await;
        assert_eq!(sim.control().counts(Exchange::Okx).open_connections, 2);
        assert_eq!(sim.control().cut(Exchange::Okx), 2);
        for socket in [&mut first, &mut second] {
            loop {
                match next(socket).await {
                    Some(Ok(Message::Text(_) | Message::Ping(_))) => {}
                    Some(Ok(other)) => panic!("a cut says nothing: {other:?}"),
                    Some(Err(_)) | None => break,
                }
            }
        }
        until("closed", || sim.control().counts(Exchange::Okx).open_connections == 0).await;
        subscribed(&sim, &case).await;
    });
}

#[test]
fn a_stalled_exchange_is_open_and_dead() {
    run(async {
        let sim = Sim::start(quiet()).unwrap();
        let control = sim.control();
        let case = case(Exchange::Okx);
        let mut socket = subscribed(&sim, &case).await;
        text_with(&mut socket, |text| text.contains("\"event\":\"subscribe\"")).await;
        control.stall(Exchange::Okx, true);
        let (pings, frames) =
            (control.counts(Exchange::Okx).pings_answered, control.counts(Exchange::Okx).frames_sent);
        socket.send(Message::text("ping")).await.unwrap();
        control.trade(Exchange::Okx, "BTC-USDT", "1.5", TIME_NS).unwrap();
        assert!(timeout(Duration::from_millis(300), socket.next()).await.is_err(), "something came");
        assert_eq!(control.counts(Exchange::Okx).frames_sent, frames);
        // REST lives on, for fallbacks.
        assert_eq!(get(&sim, Exchange::Okx, case.rest).await.0, 200);
        control.stall(Exchange::Okx, false);
        text_with(&mut socket, |text| text.contains("1.5")).await;
        until("pong", || control.counts(Exchange::Okx).pings_answered > pings).await;
    });
}

#[test]
fn garbage_comes_in_many_forms_and_good_trades_follow_it() {
    run(async {
        let sim = Sim::start(quiet()).unwrap();
        for case in cases() {
            let mut socket = subscribed(&sim, &case).await;
            sim.control().garbage(case.exchange);
            let (mut texts, mut binaries) = (Vec::new(), 0);
            while binaries == 0 {
                match next(&mut socket).await {
                    Some(Ok(Message::Text(text))) => texts.push(text.to_string()),
                    Some(Ok(Message::Binary(_))) => binaries += 1,
                    Some(Ok(_)) => {}
                    other => panic!("garbage keeps the connection: {other:?}"),
                }
            }
            assert!(texts.iter().any(|text| serde_json::from_str::<Value>(text).is_err()));
            for bad in ["-1", "1e308", "NaN", "1.2.3", "123.45"] {
                assert!(texts.iter().any(|text| text.contains(bad)), "{}: {bad}", case.exchange);
            }
            sim.control().trade(case.exchange, case.symbol, "777.5", TIME_NS).unwrap();
            text_with(&mut socket, |text| text.contains("777.5")).await;
            assert_eq!(sim.control().last_trades(case.exchange)[case.symbol].price, "777.5");
        }
    });
}

#[test]
fn broken_frames_end_in_a_protocol_error() {
    run(async {
        let sim = Sim::start(quiet()).unwrap();
        let mut socket = subscribed(&sim, &case(Exchange::Bybit)).await;
        sim.control().broken(Exchange::Bybit);
        let error = loop {
            match next(&mut socket).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("ended without an error"),
            }
        };
        assert!(matches!(error, Error::Protocol(_)), "{error}");
    });
}

#[test]
fn old_trades_come_again_with_their_own_times() {
    run(async {
        let sim = Sim::start(SimOptions { rate: 0, ..SimOptions::default() }).unwrap();
        for case in cases() {
            let mut socket = subscribed(&sim, &case).await;
            sim.control().set_price(case.exchange, case.symbol, "55555.5").unwrap();
            text_with(&mut socket, |text| text.contains("55555.5")).await;
            sim.control().replay_old(case.exchange);
            let old = trades(&mut socket, &case, 5).await;
            assert!(
                old.iter().all(|(_, price, _)| !price.to_string().contains("55555.5")),
                "{}",
                case.exchange
            );
            assert_eq!(sim.control().last_trades(case.exchange)[case.symbol].price, "55555.5");
        }
    });
}

#[test]
fn pings_and_heartbeats_can_be_withheld() {
    run(async {
        let sim = Sim::start(quiet()).unwrap();
        let control = sim.control();
        let mut socket = subscribed(&sim, &case(Exchange::Kraken)).await;
        text_with(&mut socket, |text| text == r#"{"channel":"heartbeat"}"#).await;
        control.silence_heartbeats(Exchange::Kraken, true);
        control.ignore_pings(Exchange::Kraken, true);
        socket.send(Message::text(r#"{"method":"ping","req_id":1}"#)).await.unwrap();
        socket.send(Message::Ping(Vec::new().into())).await.unwrap();
        // The control ping is answered after the text ping was not; one heartbeat may have been under way.
        loop {
            match next(&mut socket).await {
                Some(Ok(Message::Pong(_))) => break,
                Some(Ok(Message::Text(text))) => assert_eq!(text.as_str(), r#"{"channel":"heartbeat"}"#),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(control.counts(Exchange::Kraken).pings_answered, 0);
        assert_eq!(control.counts(Exchange::Kraken).control_pings, 1);
        control.ignore_pings(Exchange::Kraken, false);
        socket.send(Message::text(r#"{"method":"ping","req_id":2}"#)).await.unwrap();
        assert!(text(&mut socket).await.contains(r#""req_id":2"#));
    });
}

#[test]
fn connections_and_rest_are_refused_on_command() {
    run(async {
        let sim = Sim::start(quiet()).unwrap();
        let control = sim.control();
        control.refuse_connect(Exchange::Gemini, true);
        let stream = TcpStream::connect(sim.addr()).await.unwrap();
        let error = client_async(sim.ws_url(Exchange::Gemini), stream).await.unwrap_err();
        assert!(matches!(&error, Error::Http(response) if response.status() == 503), "{error}");
        control.refuse_connect(Exchange::Gemini, false);
        connect(&sim, Exchange::Gemini).await;
        control.refuse_rest(Exchange::Gemini, true);
        assert_eq!(get(&sim, Exchange::Gemini, "/v1/trades/btcusd").await.0, 503);
        control.refuse_rest(Exchange::Gemini, false);
        assert_eq!(get(&sim, Exchange::Gemini, "/v1/trades/btcusd").await, (404, "Not Found".to_owned()));
        assert_eq!(control.counts(Exchange::Gemini).rest_requests, 2);
        let stream = TcpStream::connect(sim.addr()).await.unwrap();
        let error = client_async(format!("ws://{}/ws/mtgox", sim.addr()), stream).await.unwrap_err();
        assert!(matches!(&error, Error::Http(response) if response.status() == 404), "{error}");
    });
}

#[test]
fn tls_serves_the_same_and_can_be_refused() {
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::aws_lc_rs;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};
    run(async {
        let options = SimOptions { tls_listen: Some("127.0.0.1:0".parse().unwrap()), ..quiet() };
        let sim = Sim::start(options).unwrap();
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(sim.certificate_pem().unwrap().as_bytes()).unwrap())
            .unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let addr = sim.tls_addr().unwrap();
        for host in ["localhost", "127.0.0.1"] {
            let stream = TcpStream::connect(addr).await.unwrap();
            let name = ServerName::try_from(host).unwrap();
            let stream = connector.connect(name.clone(), stream).await.unwrap();
            let (mut socket, _) = client_async(format!("wss://{host}/ws/okx"), stream).await.unwrap();
            socket.send(Message::text("ping")).await.unwrap();
            assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::text("pong"));
            sim.control().refuse_tls(true);
            let stream = TcpStream::connect(addr).await.unwrap();
            assert!(connector.connect(name, stream).await.is_err());
            sim.control().refuse_tls(false);
        }
    });
}

#[test]
fn typed_commands_do_what_they_say() {
    run(async {
        let sim = Sim::start(quiet()).unwrap();
        let control: Control = sim.control();
        let mut socket = subscribed(&sim, &case(Exchange::Okx)).await;
        assert_eq!(control.command("price okx BTC-USDT 123.0"), Ok("done".to_owned()));
        text_with(&mut socket, |text| text.contains("123.0")).await;
        assert!(control.command("last okx").unwrap().starts_with("BTC-USDT 123.0 "));
        assert!(control.command("counts").unwrap().starts_with("okx: 1 open of 1 connections"));
        assert!(control.command("help").unwrap().contains("replay-old"));
        assert_eq!(control.command("  cut   okx "), Ok("1 connections cut".to_owned()));
        drain(&mut socket).await;
        for (line, wanted) in [
            ("cut mtgox", "mtgox"),
            ("stall okx maybe", "maybe"),
            ("dance", "help"),
            ("price okx nonsense 1", "nonsense"),
        ] {
            assert!(control.command(line).unwrap_err().contains(wanted), "{line}");
        }
        for line in [
            "",
            "garbage okx",
            "broken okx",
            "replay-old okx",
            "notice okx",
            "stall okx on",
            "refuse-tls off",
        ] {
            assert!(control.command(line).is_ok(), "{line}");
        }
    });
}

#[test]
fn dropping_a_simulation_ends_its_connections() {
    run(async {
        let sim = Sim::start(SimOptions::default()).unwrap();
        let control = sim.control();
        let mut socket = subscribed(&sim, &case(Exchange::Kraken)).await;
        let addr = sim.addr();
        drop(sim);
        drain(&mut socket).await;
        assert!(TcpStream::connect(addr).await.is_err());
        assert_eq!(control.cut(Exchange::Kraken), 0, "a command after the end reaches nobody");
    });
}

#[test]
fn an_address_in_use_is_named() {
    let sim = Sim::start(quiet()).unwrap();
    let error = Sim::start(SimOptions { listen: sim.addr(), ..quiet() }).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(&sim.addr().to_string()) && message.contains("--listen"), "{message}");
}
