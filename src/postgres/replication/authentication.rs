//! Proving who we are: trust, a password in the clear or as MD5, SCRAM with or without a binding to
//! the encrypted channel.
//!
//! Promises: what the driver's own sessions do, and `channel_binding=require` holds: without a
//! binding no password goes out. A server that SCRAM proves wrong is refused.
//! Must not: keep a password.
//! Fails: with the server's refusal, or with what is missing.

use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use tokio_postgres::Config;
use tokio_postgres::config::ChannelBinding;
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::postgres::config::DatabaseConfig;
use crate::postgres::replication::fault::Fault;
use crate::postgres::replication::wire::Wire;
use crate::postgres::require_auth::Method;

/// Answers the server until it lets us in.
pub(super) async fn authenticate(
    wire: &mut Wire,
    database: &DatabaseConfig,
    user: &str,
) -> Result<(), Fault> {
    let (driver, required) = (&database.driver, &database.required_auth);
    match answer(wire).await? {
        Message::AuthenticationOk => {
            required.check(Method::None)?;
            return without_binding(driver);
        }
        Message::AuthenticationCleartextPassword => {
            required.check(Method::Password)?;
            without_binding(driver)?;
            send_password(wire, password(driver)?)?;
        }
        Message::AuthenticationMd5Password(body) => {
            required.check(Method::Md5)?;
            without_binding(driver)?;
            let hash = md5_hash(user.as_bytes(), password(driver)?, body.salt());
            send_password(wire, hash.as_bytes())?;
        }
        Message::AuthenticationSasl(body) => {
            required.check(Method::Scram)?;
            scram(wire, driver, &body).await?;
        }
        Message::AuthenticationKerberosV5
        | Message::AuthenticationScmCredential
        | Message::AuthenticationGss
        | Message::AuthenticationSspi => {
            let cause = "unsupported authentication method";
            return Err(Fault::Authentication(cause.to_owned()));
        }
        _ => return Err(unexpected()),
    }
    match answer(wire).await? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(unexpected()),
    }
}

/// The server's next word; an ErrorResponse is a fault, a notice is passed over.
pub(super) async fn answer(wire: &mut Wire) -> Result<Message, Fault> {
    loop {
        match wire.packet().await?.parse()? {
            Message::ErrorResponse(body) => return Err(Fault::from_fields(body.fields())),
            Message::NoticeResponse(_) => {}
            message => return Ok(message),
        }
    }
}

/// A message that has no place here.
pub(super) fn unexpected() -> Fault {
    Fault::Protocol("unexpected message from server".to_owned())
}

fn without_binding(driver: &Config) -> Result<(), Fault> {
    match driver.get_channel_binding() {
        ChannelBinding::Require => {
            Err(Fault::Authentication("server did not use channel binding".to_owned()))
        }
        _ => Ok(()),
    }
}

fn password(driver: &Config) -> Result<&[u8], Fault> {
    driver.get_password().ok_or_else(|| Fault::Authentication("password missing".to_owned()))
}

fn send_password(wire: &mut Wire, password: &[u8]) -> Result<(), Fault> {
    wire.put(|out| frontend::password_message(password, out))
}

async fn scram(
    wire: &mut Wire,
    driver: &Config,
    body: &AuthenticationSaslBody,
) -> Result<(), Fault> {
    let password = password(driver)?;
    let (binding, mechanism) = binding(wire, driver, body)?;
    if mechanism != sasl::SCRAM_SHA_256_PLUS {
        without_binding(driver)?;
    }
    let mut scram = sasl::ScramSha256::new(password, binding);
    wire.put(|out| frontend::sasl_initial_response(mechanism, scram.message(), out))?;
    let Message::AuthenticationSaslContinue(challenge) = answer(wire).await? else {
        return Err(unexpected());
    };
    scram.update(challenge.data()).map_err(disproved)?;
    wire.put(|out| frontend::sasl_response(scram.message(), out))?;
    let Message::AuthenticationSaslFinal(proof) = answer(wire).await? else {
        return Err(unexpected());
    };
    scram.finish(proof.data()).map_err(disproved)
}

fn disproved(cause: std::io::Error) -> Fault {
    Fault::Authentication(format!("authentication error: {cause}"))
}

/// The strongest mechanism that both sides know.
fn binding(
    wire: &Wire,
    driver: &Config,
    body: &AuthenticationSaslBody,
) -> Result<(sasl::ChannelBinding, &'static str), Fault> {
    let offered: Vec<&str> = body.mechanisms().collect().map_err(disproved)?;
    let end_point = match driver.get_channel_binding() {
        ChannelBinding::Disable => None,
        _ => wire.transport().end_point(),
    };
    let plus = offered.contains(&sasl::SCRAM_SHA_256_PLUS);
    match end_point {
        Some(end_point) if plus => {
            let binding = sasl::ChannelBinding::tls_server_end_point(end_point);
            Ok((binding, sasl::SCRAM_SHA_256_PLUS))
        }
        _ if !plus && !offered.contains(&sasl::SCRAM_SHA_256) => {
            Err(Fault::Authentication("unsupported SASL mechanism".to_owned()))
        }
        // The server can tell whether somebody took its offer away.
        Some(_) => Ok((sasl::ChannelBinding::unrequested(), sasl::SCRAM_SHA_256)),
        None => Ok((sasl::ChannelBinding::unsupported(), sasl::SCRAM_SHA_256)),
    }
}
