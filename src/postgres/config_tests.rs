//! What a connection string and the environment mean together.

use crate::postgres::config::*;

struct Variables(Vec<(&'static str, String)>);

impl EnvironmentSource for Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
    }
}

fn resolve(text: &str, variables: &[(&'static str, &str)]) -> Result<DatabaseConfig> {
    let variables = variables.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    Resolver { environment: &Variables(variables) }.resolve(text)
}

#[test]
fn names_the_database_without_its_secret() {
    let database = resolve("postgres://relay:secret@db:6432/app?sslmode=require", &[]).unwrap();
    assert_eq!(database.display_name(), "db:6432/app");
    assert!(!format!("{database:?}").contains("secret"), "{database:?}");
    let many = resolve("postgres://relay@a:1,b:2/app", &[]).unwrap();
    assert_eq!(many.display_name(), "a:1,b:2/app");
    let pairs = resolve("host=/run/pg user=relay", &[]).unwrap();
    assert_eq!(pairs.display_name(), "/run/pg:5432/relay");
    assert!(pairs.is_local() && !many.is_local());
}

#[test]
fn the_environment_fills_what_is_open() {
    let variables = [
        ("PGHOST", "envhost"),
        ("PGPORT", "7777"),
        ("PGUSER", "envuser"),
        ("PGPASSWORD", "envpassword"),
        ("PGDATABASE", "envdb"),
        ("PGTARGETSESSIONATTRS", "read-write"),
    ];
    let all = resolve("", &variables).unwrap();
    assert_eq!(all.display_name(), "envhost:7777/envdb");
    assert_eq!(all.driver.get_user(), Some("envuser"));
    assert_eq!(all.driver.get_password(), Some(&b"envpassword"[..]));
    assert_eq!(all.driver.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    let some = resolve("postgres://given:word@host/", &variables).unwrap();
    assert_eq!(some.display_name(), "host:7777/envdb");
    let two = resolve("postgres://a:1,b/", &variables).unwrap();
    assert_eq!(two.display_name(), "a:1,b:5432/envdb");
    assert_eq!(resolve("host=pairs", &variables).unwrap().display_name(), "pairs:7777/envdb");
    assert_eq!(some.driver.get_user(), Some("given"));
    assert_eq!(some.driver.get_password(), Some(&b"word"[..]));
}

#[test]
fn what_required_tls_before_sslmode_still_does() {
    let attempts = |text: &str, variables: &[(&'static str, &str)]| {
        format!("{:?}", resolve(text, variables).unwrap().tls.attempts())
    };
    let (old, require) = ([("PGREQUIRESSL", "1")], attempts("sslmode=require", &[]));
    assert_eq!(attempts("host=h", &old), require);
    assert_eq!(attempts("host=h requiressl=1", &[]), require);
    assert_eq!(attempts("postgres://h/?requiressl=1", &[]), require);
    assert_eq!(attempts("host=h", &[("PGREQUIRESSL", "0")]), attempts("host=h", &[]));
    let both = [old[0], ("PGSSLMODE", "prefer")];
    assert_eq!(attempts("host=h", &both), attempts("host=h", &[]), "the newer one wins");
}

struct NoText(&'static str);

impl EnvironmentSource for NoText {
    fn get(&self, _: &str) -> Option<String> {
        None
    }

    fn is_no_text(&self, name: &str) -> bool {
        self.0 == name
    }
}

#[test]
fn a_variable_that_is_no_text_is_refused_by_its_name() {
    for name in ["PGPASSWORD", "PGHOST", "PGSSLROOTCERT"] {
        let error = Resolver { environment: &NoText(name) }.resolve("host=h").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(name) && error.message().contains("UTF-8"), "{error}");
    }
}

#[test]
fn waits_ten_seconds_unless_told_otherwise() {
    let timeout = |text: &str| {
        resolve(&format!("postgres://u@h/d{text}"), &[])
            .unwrap()
            .driver
            .get_connect_timeout()
            .copied()
    };
    assert_eq!(timeout(""), Some(Duration::from_secs(10)));
    assert_eq!(timeout("?connect_timeout=3"), Some(Duration::from_secs(3)));
    assert_eq!(timeout("?connect_timeout=1"), Some(Duration::from_secs(2)));
    assert_eq!(timeout("?connect_timeout=0"), None);
    let database =
        resolve("postgres://u@h/d?tcp_user_timeout=1500&keepalives_idle=7", &[]).unwrap();
    assert_eq!(database.driver.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
    assert_eq!(database.driver.get_keepalives_idle(), Duration::from_secs(7));
    assert_eq!(database.driver.get_keepalives_interval(), Some(KEEPALIVES_INTERVAL));
    assert_eq!(database.driver.get_keepalives_retries(), Some(3));
}

#[test]
fn carries_the_mark_behind_the_given_options() {
    let options = |text: &str| {
        let database = resolve(text, &[]).unwrap();
        database.driver.get_options().map(str::to_owned)
    };
    assert_eq!(options("host=h"), Some(format!("{UNHURRIED} {DIRECT_MARK}")));
    let url = "postgres://h/d?options=-c%20work_mem%3D1MB";
    assert_eq!(options(url), Some(format!("-c work_mem=1MB {UNHURRIED} {DIRECT_MARK}")));
}

#[tokio::test]
async fn takes_the_password_from_the_file_as_it_is_now() {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::env::temp_dir().join(format!("postrider-home-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join(".pgpass");
    std::fs::write(&file, "db:5432:app:relay:filed\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let home = folder.to_str().unwrap().to_owned();
    let url = "postgres://relay@db/app";
    let now = async |database: &DatabaseConfig| {
        let now = database.now().await.unwrap();
        now.driver.get_password().map(|word| String::from_utf8(word.to_vec()).unwrap())
    };
    let found = resolve(url, &[("HOME", &home)]).unwrap();
    assert_eq!(now(&found).await.as_deref(), Some("filed"));
    let other = resolve("postgres://other@db/app", &[("HOME", &home)]).unwrap();
    assert_eq!(now(&other).await, None);
    let passfile = format!("{url}?passfile={}", file.display());
    let found = resolve(&passfile, &[]).unwrap();
    assert_eq!(now(&found).await.as_deref(), Some("filed"));
    std::fs::write(&file, "db:5432:app:relay:changed\n").unwrap();
    assert_eq!(now(&found).await.as_deref(), Some("changed"));
    let given = resolve("postgres://relay:given@db/app", &[("HOME", &home)]).unwrap();
    assert_eq!(now(&given).await.as_deref(), Some("given"));
    let filed = given.with_password(PasswordSource::File(file.clone()));
    assert_eq!(now(&filed).await.as_deref(), Some("db:5432:app:relay:changed"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn says_which_parameter_has_no_meaning() {
    for (text, variables, word) in [
        ("postgres://u:secret@h/d?sslmode=verfy-full", &[][..], "verfy-full"),
        ("postgres://u:secret@h/d?colour=red", &[], "colour"),
        ("postgres://u:secret@h:port/d", &[], "port"),
        ("postgres://u:secret@h/d?connect_timeout=soon", &[], "connect_timeout"),
        ("postgres://u:secret@h/d?target_session_attrs=standby", &[], "standby"),
        ("postgres://u:secret@h/d?gssencmode=require", &[], "gssencmode"),
        ("postgres://u:secret@h/d?sslcert=/a", &[], "sslkey"),
        ("postgres://u:secret@h/d?sslmode=verify-full", &[], "root certificate"),
        ("", &[("PGPORT", "x")], "PGPORT"),
        ("", &[("PGSERVICE", "x")], "PGSERVICE"),
        ("", &[("PGSSLCRL", "x")], "PGSSLCRL"),
        ("", &[("PGHOST", "h:1/d")], "PGHOST"),
        ("", &[("PGDATABASE", "postgres://u:secret@h/d")], "PGDATABASE"),
        ("postgres://u:secret@h/d?host=a@secret", &[], "host"),
        ("", &[("PGSSLMODE", "x")], "sslmode"),
    ] {
        let error = resolve(text, variables).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        assert!(error.message().contains(word), "{text}: {error}");
        assert!(error.remedy().is_some(), "{text}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{text}: {error}");
    }
}

#[test]
fn shows_no_part_of_a_password() {
    for text in [
        "host=h password=my hunter2=x",
        "host=h password=my hunter=x",
        "host=h password = my great hunter=x",
        "host=h password=my hunter",
        "password=hunter",
        "postgres://u:hunter@ten@h/d",
        "postgres://u:my@hunter@h/d",
        "postgres://u:my@hunter/x@h/d",
        "postgres://u:my@x?hunter=x@h/d",
        "postgres://u@h/d?password=my&hunter=x",
        "postgres://u:hunter@h/d?sslmod=x",
        "postgres://u:my@h/d?hunter2=x",
        "mysql://u:hunter@h/d",
        "postgres://u:12/hunter@h:5432/d",
        "postgres://u:p@h/d?sslmode=require;password=hunter",
        "postgres://h/d?sslmode=require%20password=hunter",
        "postgres://h/d?sslmode=require,password%3Dhunter",
        "host=h target_session_attrs=any,password=hunter",
        "dbname='postgres://u:hunter@h/d'",
        "host=postgres://u:hunter@h",
    ] {
        let said = match resolve(text, &[]) {
            Ok(database) => format!("{database:?} {}", database.display_name()),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!said.contains("hunter"), "{text}: {said}");
    }
}

#[test]
fn names_an_unknown_parameter_that_is_no_secret() {
    for text in ["host=h sslmod=x password=p", "postgres://u:p@h/d?sslmod=x"] {
        let error = resolve(text, &[]).unwrap_err();
        assert!(error.message().ends_with("the parameter sslmod is not known"), "{error}");
    }
    let error = resolve("host=h password=my secret=x", &[]).unwrap_err();
    assert!(error.remedy().unwrap().contains("password='"), "{error}");
    let error = resolve("postgres://u:p@ss@h/d", &[]).unwrap_err();
    assert!(error.remedy().unwrap().contains("%40"), "{error}");
}

#[test]
fn knows_every_parameter_of_the_driver() {
    let text = "host=h hostaddr=127.0.0.1 port=1 user=u password=p dbname=d keepalives=1 \
                keepalives_idle=1 keepalives_interval=1 keepalives_retries=1 \
                sslnegotiation=direct channel_binding=disable load_balance_hosts=random \
                require_auth=scram-sha-256";
    assert_eq!(resolve(text, &[]).unwrap().display_name(), "h:1/d");
}

#[tokio::test]
async fn a_connection_string_in_a_file_gives_the_password_that_it_has_now() {
    let file = std::env::temp_dir().join(format!("postrider-url-{}", std::process::id()));
    let password = async |database: &DatabaseConfig| {
        let now = database.now().await.unwrap();
        now.driver.get_password().map(|word| String::from_utf8(word.to_vec()).unwrap())
    };
    let database = resolve("postgres://u:first@h/d", &[]).unwrap().of_file(file.clone());
    for (text, expected) in [
        ("postgres://u:second@h/d\n", "second"),
        ("host=h user=u password='a third'", "a third"),
        ("postgres://u@h/d", "first"),
    ] {
        std::fs::write(&file, text).unwrap();
        assert_eq!(password(&database).await.as_deref(), Some(expected), "{text}");
    }
    std::fs::remove_file(&file).unwrap();
    let error = database.now().await.err().unwrap();
    assert!(error.message().contains("cannot be read"), "{error}");
}

#[test]
fn what_a_server_must_ask_for_comes_from_the_string_or_its_variable() {
    let variable = [("PGREQUIREAUTH", "md5")];
    let given = |text: &str, variables| resolve(text, variables).unwrap().required_auth;
    assert!(given("host=h", &[]).is_any() && given("host=h require_auth=''", &[]).is_any());
    assert_eq!(given("host=h", &variable), given("host=h require_auth=md5", &[]));
    assert_ne!(given("host=h require_auth=!md5", &variable), given("host=h", &variable));
    let error = resolve("postgres://h/d?require_auth=gss", &[]).unwrap_err();
    assert!(error.message().contains("require_auth"), "{error}");
}

/// However a password is written into a string, rightly or wrongly, it is nowhere to be seen.
#[test]
fn no_password_is_shown_of_any_string() {
    use proptest::prelude::*;
    let secret = "[a-zA-Z0-9@/:?&=%#+ ;,'\\\\-]{0,5}hunter[a-zA-Z0-9@/:?&=%#+ ;,'\\\\-]{0,5}";
    let encoded =
        |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02x}")).collect() };
    proptest!(ProptestConfig::with_cases(5_000), |(secret in secret, form in 0..8, more in "[a-z=&@/ ]{0,6}")| {
        let text = match form {
            0 => format!("postgres://u:{secret}@h/d?{more}"),
            1 => format!("postgres://u:{}@h/d?{more}=x", encoded(&secret)),
            2 => format!("postgres://h/d?user=a@b&password={secret}&{more}"),
            3 => format!("postgres://h:1/d?password={}&sslmode={more}", encoded(&secret)),
            4 => format!("host=h password={secret} {more}"),
            5 => format!("host=h password='{secret}' {more}"),
            6 => format!("postgres://u:{secret}@h:1,i:2?sslmode=require&{more}"),
            _ => format!("postgres://u:{secret}{more}@[::1]:1"),
        };
        let said = match resolve(&text, &[]) {
            Ok(database) => format!("{database:?} {}", database.display_name()),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!said.contains("hunter"), "{text}: {said}");
    });
}

/// Whatever the password is, what is encoded comes out again, and the rest stays what it is.
#[test]
fn an_encoded_password_is_only_a_password() {
    use proptest::prelude::*;
    proptest!(|(secret in "[^\0]{1,12}", user in "[^\0]{1,12}")| {
        let encoded = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
        let (login, word) = (encoded(&user), encoded(&secret));
        for url in [
            format!("postgres://{login}:{word}@h:5/d?sslmode=disable"),
            format!("postgresql://h:5/d?user={login}&sslmode=disable&password={word}"),
        ] {
            let database = resolve(&url, &[]).unwrap();
            prop_assert_eq!(database.display_name(), "h:5/d");
            prop_assert_eq!(database.driver.get_user(), Some(user.as_str()));
            prop_assert_eq!(database.driver.get_password(), Some(secret.as_bytes()));
        }
    });
}

#[test]
fn an_open_way_out_of_this_machine_is_told() {
    for near in ["host=/run/pg", "postgres://localhost/d", "postgres://127.0.0.2,[::1]/d"] {
        assert_eq!(resolve(near, &[]).unwrap().weakness(), None, "{near}");
    }
    for far in ["postgres://db/d", "postgres://localhost,10.0.0.1/d", "host=db hostaddr=::2"] {
        assert!(resolve(far, &[]).unwrap().weakness().is_some(), "{far}");
    }
    let full = "postgres://db/d?sslmode=verify-full&sslrootcert=/root.crt";
    assert_eq!(resolve(full, &[]).unwrap().weakness(), None);
}
