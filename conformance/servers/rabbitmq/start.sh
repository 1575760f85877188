# Runs the node in the foreground, with a port mapper of its own: both end with their process group.
export HOME={{folder}}/data
export ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT={{port_mapper}}
export RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_DIST_PORT={{distribution}}
export RABBITMQ_CONF_ENV_FILE=/dev/null
export RABBITMQ_CONFIG_FILE={{folder}}/rabbitmq.conf RABBITMQ_ADVANCED_CONFIG_FILE={{folder}}/none
export RABBITMQ_ENABLED_PLUGINS_FILE={{folder}}/enabled_plugins
export RABBITMQ_MNESIA_BASE={{folder}}/data RABBITMQ_LOG_BASE={{folder}}/data
export RABBITMQ_GENERATED_CONFIG_DIR={{folder}}/data
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}'

epmd -address 127.0.0.1 -port {{port_mapper}} &
for program in /usr/lib/rabbitmq/bin/rabbitmq-server /opt/rabbitmq/sbin/rabbitmq-server; do
  [ ! -x $program ] || exec $program
done
