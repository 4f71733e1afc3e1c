#!/bin/sh
# runc for a node with a CPU quota on cgroup v1, where a group's quota may not exceed its parent's: a container
# whose limit is higher than all its node has would not start. On a real small machine it starts and gets what
# there is, so such a limit is lowered to the node's before runc reads it.
# @RUNC@ and @MILLICORES@ are filled in for each node.
bundle='' previous='' creates=''
for word; do
  case $previous in --bundle | -b) bundle=$word ;; esac
  case $word in create | run) creates=yes ;; esac
  previous=$word
done
config=$bundle/config.json
if [ "$creates" ] && [ -f "$config" ]; then
  limit=$(sed -n 's/.*"quota":\([0-9]*\),"period":\([0-9]*\).*/\1 \2/p' "$config")
  if [ "$limit" ]; then
    quota=${limit% *} period=${limit#* }
    most=$((period * @MILLICORES@ / 1000))
    if [ "$quota" -gt "$most" ]; then
      sed -i "s/\"quota\":$quota,\"period\":$period/\"quota\":$most,\"period\":$period/" "$config"
    fi
  fi
fi
exec @RUNC@ "$@"
