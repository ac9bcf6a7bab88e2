-- End open invitations, free their seats, and record each end. Only this function ends an invitation without an
-- acceptance. The API, the worker and the triggers below call it. The seat of an invitation that an operation is
-- filling stays with that operation, which settles it. Reservations are locked before invitations, as in the
-- transaction that settles a step, so the two cannot wait for each other.
create or replace function end_invitations(
    ids text[], ended_as text, because text, by_source text, by_operation text, by_principal text, by_actor text)
returns int language plpgsql as $$
declare
    ended text[];
begin
    perform 1 from reservations where invitation_id = any(ids) and released_at is null order by id for update;
    with changed as (
        update invitations set state = ended_as, reason = because, ended_at = clock_timestamp()
        where id = any(ids) and state = 'open'
        returning id, subscription_id, role
    ), recorded as (
        insert into audit_events (subscription_id, source, operation_id, principal, actor_id, action, before, after)
        select subscription_id, by_source, by_operation, by_principal, by_actor, 'invitation_' || ended_as,
            jsonb_build_object('role', role),
            jsonb_strip_nulls(jsonb_build_object('invitation_id', id, 'reason', because))
        from changed order by id
    )
    select coalesce(array_agg(id), '{}') into ended from changed;
    update reservations set
        released_at = case when operation_id is null then clock_timestamp() end,
        invitation_id = case when operation_id is null then invitation_id end
    where invitation_id = any(ended) and released_at is null;
    return cardinality(ended);
end $$;

-- An invitation rests on its inviter's right, so it ends in the transaction in which the mirror applies the loss of that
-- right: the end of the inviter's membership, or of their role as manager. A member who became the owner keeps theirs.
create or replace function end_invitations_of_member() returns trigger language plpgsql as $$
declare
    cause record;
begin
    select o.id, o.principal, o.actor_id into cause
    from operation_steps t join operations o on o.id = t.operation_id
    where t.customer_id = old.customer_id and t.settled_at is null and t.sent_at is not null
    limit 1;
    perform end_invitations(array(
            select i.id from invitations i
            where i.inviter_id = old.customer_id and i.state = 'open' and i.subscription_id = old.subscription_id
              and not exists (select from subscriptions s
                  where s.id = i.subscription_id and coalesce(s.owner_id, s.customer_id) = i.inviter_id)),
        'revoked', case when tg_op = 'DELETE' then 'inviter_removed' else 'inviter_demoted' end,
        case when cause.id is null then 'dashboard' else 'api' end, cause.id, cause.principal, cause.actor_id);
    return null;
end $$;

create or replace trigger end_invitations_of_removed after delete on memberships for each row
    execute function end_invitations_of_member();

create or replace trigger end_invitations_of_demoted after update of role on memberships for each row
    when (old.role = 'manager' and new.role <> 'manager')
    execute function end_invitations_of_member();

-- A customer who does not exist invites nobody. At the erasure of a person, open invitations to their address end, and no
-- ended one holds the address any more. An invitation that another session has made since then is a new one, and keeps it.
create or replace function end_invitations_of_customer() returns trigger language plpgsql as $$
begin
    -- Two people who invited each other may be erased at the same moment, so all seats are locked in one order first.
    perform 1 from reservations where released_at is null and invitation_id in (
            select id from invitations where inviter_id = old.id and state = 'open'
            union
            select id from invitations where lower(email collate "C") = lower(old.email collate "C") and state = 'open')
    order by id for update;
    perform end_invitations(array(select id from invitations where inviter_id = old.id and state = 'open'),
        'revoked', 'inviter_removed', 'dashboard', null, null, null);
    if new.existence = 'deleted' and old.email is not null then
        perform end_invitations(array(
                select id from invitations
                where lower(email collate "C") = lower(old.email collate "C") and state = 'open'),
            'revoked', 'person_erased', 'dashboard', null, null, null);
        update invitations set email = null
        where lower(email collate "C") = lower(old.email collate "C") and state <> 'open';
    end if;
    return null;
end $$;

create or replace trigger end_invitations_of_customer after update of existence on customers for each row
    when (old.existence = 'present' and new.existence <> 'present')
    execute function end_invitations_of_customer();

-- The end of a subscription ends its invitations. A change of the owner ends those of the former owner only, even if they
-- stay as a member. While metadata names no owner, the payer is the owner.
create or replace function end_invitations_of_subscription() returns trigger language plpgsql as $$
declare
    cause record;
    has_ended boolean := new.status in ('canceled', 'incomplete_expired');
begin
    select o.id, o.principal, o.actor_id into cause
    from operation_steps t join operations o on o.id = t.operation_id
    where o.subscription_id = new.id and t.settled_at is null and t.sent_at is not null
      and t.action not in ('add', 'remove', 'update')
    limit 1;
    perform end_invitations(array(
            select i.id from invitations i
            where i.subscription_id = new.id and i.state = 'open'
              and (has_ended or i.inviter_id = coalesce(old.owner_id, old.customer_id))),
        'revoked', case when has_ended then 'subscription_ended' else 'owner_changed' end,
        case when cause.id is null then 'dashboard' else 'api' end, cause.id, cause.principal, cause.actor_id);
    return null;
end $$;

create or replace trigger end_invitations_of_subscription after update on subscriptions for each row
    when ((new.status in ('canceled', 'incomplete_expired') and old.status is distinct from new.status)
          or coalesce(old.owner_id, old.customer_id) is distinct from coalesce(new.owner_id, new.customer_id))
    execute function end_invitations_of_subscription();
