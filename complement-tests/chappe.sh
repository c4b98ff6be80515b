#!/usr/bin/env bash
# Becomes the homeserver SERVER_NAME on ADDRESS, with its data in FOLDER; the deployer sets all three.
set -euo pipefail
config="$FOLDER/chappe.toml"
if [ ! -f "$config" ]; then
  cat > "$config" <<TOML
server_name = "$SERVER_NAME"
data_dir = "$FOLDER/data"
public_baseurl = "http://$ADDRESS:8008"

[[listeners]]
address = "$ADDRESS"
port = 8008
apis = ["client", "media", "federation", "admin"]

[[listeners]]
address = "$ADDRESS"
port = 8448
apis = ["federation"]
tls = { certificate = "$FOLDER/tls.crt", key = "$FOLDER/tls.key" }

[outbound]
allowed_ranges = ["127.0.0.0/8"]
certificate_authorities = ["$FOLDER/ca.crt"]
system_authorities = false

[identity]
profile = "matrix"

[client.registration]
open = true

[client.rates]
$(printf '%s = { per_second = 0, burst = 0 }\n' request login_by_ip login_by_account registration message join invite search upload preview)

[rooms.notices]
user = "_server"

[media]
serve_without_login = true
fetch_without_login = true

[media.previews]
enabled = true
ports = []
allowed_ranges = ["127.0.0.0/8"]

[accounts]
guess_mentions = true

[accounts.password]
memory_kib = 64
passes = 1

[accounts.password.policy]
minimum_length = 1

[delivery]
presence = true

[federation]
device_names = true
backoff_min_ms = 100
backoff_max = 2
timeout = 10

[admin]
registration_shared_secret = "complement"

[appservices]
registrations = [$(if [ -d "$FOLDER/appservice" ]; then printf '"%s"' "$FOLDER/appservice"; fi)]
TOML
fi
exec "$CHAPPE_BIN" serve --config "$config"
