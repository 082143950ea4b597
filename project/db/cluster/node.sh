#!/bin/sh
# Start a node of the cluster.
#   $1  the file with its configuration, or the folder with all files of it
set -e

# The volume has the image's mode, 1777. initdb corrects that; pg_basebackup does not, and PostgreSQL would not start.
chmod 700 "$PGDATA"

# A name on the internal network only, so the REST API listens on that network only.
address=$PATRONI_NAME.cluster
export PATRONI_RESTAPI_LISTEN="$address:8008" PATRONI_RESTAPI_CONNECT_ADDRESS="$address:8008"
export PATRONI_POSTGRESQL_CONNECT_ADDRESS="$address:5432"

exec patroni "$1"
