#!/bin/sh
# A job that takes its time: one line a second for an hour.
i=0
while [ "$i" -lt 3600 ]; do
	echo "step $i"
	i=$((i + 1))
	sleep 1
done
