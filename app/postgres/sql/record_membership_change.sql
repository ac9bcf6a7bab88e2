-- Record a change of membership in the transaction in which the mirror applies it, so that no path can omit it. If an
-- unsettled operation sent the change, the entry names that operation; otherwise its source is the Dashboard.
create or replace function record_membership_change() returns trigger language plpgsql as $$
declare
    was_on text := case when tg_op = 'UPDATE' and old.existence = 'present' then old.member_of end;
    is_on text := case when new.existence = 'present' then new.member_of end;
    cause record;
begin
    select o.id, o.principal, o.actor_id into cause
    from operation_steps t join operations o on o.id = t.operation_id
    where (t.customer_id = new.id or (t.customer_id is null and o.id = new.operation_id))
      and t.settled_at is null and t.sent_at is not null
    limit 1;
    if tg_op = 'INSERT' and cause.id is null then
        return null;
    end if;
    if was_on is not null and was_on is distinct from is_on then
        insert into audit_events (subscription_id, source, operation_id, principal, actor_id, action, customer_id,
            before, after)
        values (was_on, case when cause.id is null then 'dashboard' else 'api' end, cause.id, cause.principal,
            cause.actor_id, 'member_removed', new.id, jsonb_build_object('role', old.member_role), '{}');
    end if;
    if is_on is not null and was_on is distinct from is_on then
        insert into audit_events (subscription_id, source, operation_id, principal, actor_id, action, customer_id,
            before, after)
        values (is_on, case when cause.id is null then 'dashboard' else 'api' end, cause.id, cause.principal,
            cause.actor_id, 'member_added', new.id, '{}', jsonb_build_object('role', new.member_role));
    elsif is_on is not null and old.member_role is distinct from new.member_role then
        insert into audit_events (subscription_id, source, operation_id, principal, actor_id, action, customer_id,
            before, after)
        values (is_on, case when cause.id is null then 'dashboard' else 'api' end, cause.id, cause.principal,
            cause.actor_id, 'role_changed', new.id, jsonb_build_object('role', old.member_role),
            jsonb_build_object('role', new.member_role));
    end if;
    return null;
end $$;

create or replace trigger record_membership_insert after insert on customers for each row
    when (new.member_of is not null) execute function record_membership_change();

create or replace trigger record_membership_update after update on customers for each row
    when (old.member_of is distinct from new.member_of or old.member_role is distinct from new.member_role
          or (old.existence is distinct from new.existence and old.member_of is not null))
    execute function record_membership_change();
