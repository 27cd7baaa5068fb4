//! In which order the servers are tried that a connection string names.
//!
//! Promises: the one that gave a session last comes first, then the others as they were named, so that a server whose
//! host is lost, which costs a whole `connect_timeout`, is waited for once and not by each session anew. Must not: try
//! one twice. Fails: never; what cannot be taken apart stays whole.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, TargetSessionAttrs};

/// Where nobody says another one.
pub(super) const DEFAULT_PORT: u16 = 5432;

/// Which server gave a session last; shared by all sessions of a configuration.
#[derive(Debug, Default)]
pub(super) struct LastServer(AtomicUsize);

impl LastServer {
    /// A session was had of the server with this number.
    pub(super) fn note(&self, number: usize) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// The numbers of so many servers, in the order in which they are tried. Where any server will do, a standby might
    /// have been the last one: then they are tried as they were named.
    pub(super) fn order(
        &self,
        driver: &Config,
        count: usize,
    ) -> impl Iterator<Item = usize> + use<> {
        let finds_primary = driver.get_target_session_attrs() == TargetSessionAttrs::ReadWrite;
        let last = if finds_primary { self.0.load(Ordering::Relaxed) } else { 0 };
        let others = (0..count).filter(move |number| *number != last);
        (last < count).then_some(last).into_iter().chain(others)
    }
}

/// The driver's settings for each server alone, by their numbers. One where the driver has to choose, or to refuse.
pub(super) fn each_alone(driver: &Config) -> Vec<Config> {
    let (hosts, addresses, ports) =
        (driver.get_hosts(), driver.get_hostaddrs(), driver.get_ports());
    let count = hosts.len().max(addresses.len());
    let fits = |given: usize| given == 0 || given == count;
    let is_whole =
        fits(hosts.len()) && fits(addresses.len()) && (ports.len() == 1 || fits(ports.len()));
    if count < 2 || !is_whole || driver.get_load_balance_hosts() == LoadBalanceHosts::Random {
        return vec![driver.clone()];
    }
    (0..count).map(|number| alone(driver, number)).collect()
}

fn alone(driver: &Config, number: usize) -> Config {
    let mut one = without_servers(driver);
    let ports = driver.get_ports();
    one.port(*ports.get(number).or(ports.first()).unwrap_or(&DEFAULT_PORT));
    match driver.get_hosts().get(number) {
        Some(Host::Tcp(name)) => {
            one.host(name);
        }
        #[cfg(unix)]
        Some(Host::Unix(folder)) => {
            one.host_path(folder);
        }
        None => {}
    }
    if let Some(address) = driver.get_hostaddrs().get(number) {
        one.hostaddr(*address);
    }
    one
}

/// All but where: the driver's own type lets no server be taken out.
fn without_servers(driver: &Config) -> Config {
    let mut one = Config::new();
    one.ssl_mode(driver.get_ssl_mode())
        .ssl_negotiation(driver.get_ssl_negotiation())
        .target_session_attrs(driver.get_target_session_attrs())
        .channel_binding(driver.get_channel_binding())
        .load_balance_hosts(driver.get_load_balance_hosts())
        .keepalives(driver.get_keepalives())
        .keepalives_idle(driver.get_keepalives_idle());
    driver.get_user().map(|user| one.user(user));
    driver.get_password().map(|password| one.password(password));
    driver.get_dbname().map(|name| one.dbname(name));
    driver.get_options().map(|options| one.options(options));
    driver.get_application_name().map(|name| one.application_name(name));
    driver.get_connect_timeout().map(|timeout| one.connect_timeout(*timeout));
    driver.get_tcp_user_timeout().map(|timeout| one.tcp_user_timeout(*timeout));
    driver.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
    driver.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
    one
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::DatabaseConfig;

    /// With every setting that a connection string may have.
    const FULL: &str = "user=u password=secret dbname=d options='-c a=b' application_name=n sslmode=require \
                        sslnegotiation=direct connect_timeout=3 tcp_user_timeout=4000 keepalives=0 keepalives_idle=5 \
                        keepalives_interval=6 keepalives_retries=7 target_session_attrs=read-write channel_binding=require";

    fn parsed(servers: &str) -> Config {
        format!("{servers} {FULL}").parse().expect("the driver knows all of this")
    }

    #[test]
    fn a_server_alone_has_all_that_the_driver_was_told() {
        let alone =
            each_alone(&parsed("host=a,/b,c hostaddr=10.0.0.1,10.0.0.2,10.0.0.3 port=1,2,3"));
        let expected = [
            "host=a hostaddr=10.0.0.1 port=1",
            "host=/b hostaddr=10.0.0.2 port=2",
            "host=c hostaddr=10.0.0.3 port=3",
        ];
        assert_eq!(alone, expected.map(parsed));
        let same_port = each_alone(&parsed("host=a,b port=7"));
        assert_eq!(same_port, ["host=a port=7", "host=b port=7"].map(parsed));
        assert_eq!(
            each_alone(&parsed("host=a,b")),
            ["host=a port=5432", "host=b port=5432"].map(parsed)
        );
    }

    #[test]
    fn what_only_the_driver_can_judge_stays_whole() {
        for servers in ["host=a", "host=a,b port=1,2,3", "host=a,b load_balance_hosts=random"] {
            let driver = parsed(servers);
            assert_eq!(each_alone(&driver), [driver]);
        }
    }

    fn order(last: &LastServer, driver: &Config, count: usize) -> Vec<usize> {
        last.order(driver, count).collect()
    }

    #[test]
    fn the_last_one_comes_first_and_each_comes_once() {
        let (last, driver) = (LastServer::default(), parsed("host=a,b,c"));
        assert_eq!(order(&last, &driver, 3), [0, 1, 2]);
        last.note(2);
        assert_eq!(order(&last, &driver, 3), [2, 0, 1]);
        assert_eq!(order(&last, &driver, 1), [0], "a driver that stays whole is the only one");
    }

    #[test]
    fn a_standby_that_let_us_in_does_not_come_first() {
        let (last, driver) = (LastServer::default(), "host=a,b".parse::<Config>());
        last.note(1);
        assert_eq!(order(&last, &driver.expect("it is well formed"), 2), [0, 1]);
    }

    #[test]
    fn what_one_session_learned_holds_for_all() {
        let url = "postgres://u@a,b/d?target_session_attrs=read-write";
        let database = DatabaseConfig::parse(url).expect("it is well formed");
        let other = database.clone().patient_with_refusals(std::time::Duration::from_secs(1));
        other.last_server.note(1);
        assert_eq!(order(&database.last_server, &database.driver, 2), [1, 0]);
    }
}
