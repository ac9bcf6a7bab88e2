-- Draw grants for requests to Stripe. One draw counts, decides and writes under one lock, and each of its statements
-- takes its snapshot after the lock. A grant counts for one second after the last moment at which it may be spent, so
-- no second of calls exceeds the limit. The account's limit adds the network delay of a call to Stripe. Steady calls
-- of an endpoint are evenly spaced, so its limit does not. Steady grants are given in advance, at equal distances, so
-- the duration of a draw delays no call. The tables are unlogged: a draw does not wait for the disk, and a crash of
-- the server loses only grants of the last second.
create or replace function draw_stripe_requests(
    asked_work text, asked_endpoint text, wanted int, wanted_spare int, account_limit float, shares jsonb,
    endpoint_limit float, is_steady boolean, spend_seconds float, keep_seconds float, delay_seconds float,
    ahead_seconds float, recovery_seconds float,
    out granted int, out spare int, out first_seconds float, out gap_seconds float, out wait_seconds float)
language plpgsql as $$
declare
    moment timestamptz;
    slot timestamptz;
    factor float;
    account_total int;
    endpoint_total int;
    account_free int;
    endpoint_free int;
begin
    perform pg_advisory_xact_lock(7203911642);
    moment := clock_timestamp();
    delete from rate_grants where counts_until <= moment;
    select least(1, s.factor + extract(epoch from moment - s.since) / recovery_seconds) into factor
    from rate_slowdown s;
    account_total := greatest(1, floor(account_limit * coalesce(factor, 1)));
    endpoint_total := greatest(1, floor(endpoint_limit * coalesce(factor, 1)));
    granted := 0;
    spare := 0;
    first_seconds := 0;
    gap_seconds := case when is_steady then (1 + spend_seconds) / endpoint_total else 0 end;
    slot := moment;
    if is_steady then
        select greatest(moment, max(granted_at) + gap_seconds * interval '1 second') into slot
        from rate_grants where work = asked_work and endpoint = asked_endpoint;
        first_seconds := extract(epoch from slot - moment);
    end if;
    loop
        exit when granted = wanted or slot > moment + ahead_seconds * interval '1 second';
        -- A kind of work gets its own share, and the rest that other kinds neither use nor have as their share.
        with used as (
            select work, sum(number)::int as number from rate_grants where counts_until > slot group by work
        )
        select greatest(
            floor(account_total * coalesce((shares ->> asked_work)::float, 0))
                - coalesce((select number from used where work = asked_work), 0),
            account_total - coalesce((select sum(number) from used), 0) - coalesce((
                select sum(greatest(0, floor(account_total * share.value::float) - coalesce(used.number, 0)))
                from jsonb_each_text(shares) share left join used on used.work = share.key
                where share.key <> asked_work), 0))
        into account_free;
        select endpoint_total - coalesce(sum(number), 0) into endpoint_free
        from rate_grants where endpoint = asked_endpoint
          and counts_until > slot + case when is_steady then delay_seconds else 0 end * interval '1 second';
        exit when least(account_free, endpoint_free) < 1;
        if is_steady then
            granted := granted + 1;
            insert into rate_grants values (
                slot, slot + (1 + spend_seconds + delay_seconds) * interval '1 second', asked_work, asked_endpoint, 1);
            slot := slot + gap_seconds * interval '1 second';
        else
            granted := least(wanted, account_free, endpoint_free);
            -- Spare grants use at most half of what is free and half of the own share, so no waiting call loses one.
            select greatest(0, least(wanted_spare, (least(account_free, endpoint_free) - granted) / 2,
                floor(account_total * coalesce((shares ->> asked_work)::float, 0) / 2) - granted
                - coalesce(sum(number), 0)))
            into spare from rate_grants where work = asked_work and counts_until > slot;
            insert into rate_grants
            select moment, moment + (1 + seconds + delay_seconds) * interval '1 second', asked_work, asked_endpoint, n
            from (values (granted, spend_seconds), (spare, keep_seconds)) as given(n, seconds) where n > 0;
            exit;
        end if;
    end loop;
    if slot > moment + ahead_seconds * interval '1 second' then
        wait_seconds := extract(epoch from slot - moment) - ahead_seconds / 2;
    else
        select greatest(0.005, coalesce(extract(epoch from min(counts_until) - moment), 0.05))
        into wait_seconds from rate_grants where counts_until > moment;
    end if;
end $$;
