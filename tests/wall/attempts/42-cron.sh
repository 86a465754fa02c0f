#!/bin/sh
# Plants a job of cron, under a name that cron passes over and for a moment. Success: it could be written.
status=1
for place in /etc/cron.d /etc/cron.hourly /var/spool/cron /var/spool/cron/crontabs /var/spool/cron/atjobs; do
    file=$place/.agentpool.wall
    [ -d "$place" ] || continue
    (: >"$file") && rm -f "$file" && status=0
done
if command -v crontab >/dev/null; then # the same as before
    if crontab -l >.wall/crontab; then crontab .wall/crontab && status=0; fi
fi
exit $status
