-- Keep the projection of memberships, their counts and the audit trail in the statement that applies a customer, so that
-- no path can omit one of them. See docs/decisions/0038-keep-memberships-as-rows-in-the-statement-that-applies-a-customer.md.
--
-- A change of a count adds the rows of its subscription up into one, without waiting: rows that another transaction is
-- changing are left to it, and if it has all of them, the change stands as a row of its own. So transactions that
-- change the counts of several subscriptions in different orders never wait for each other.
--
-- If an unsettled operation sent the change, the audit entry and the fact of which the application learns name that
-- operation; otherwise their source is the Dashboard, or the reconcile that has found the change.
create or replace function record_membership_change() returns trigger language plpgsql as $$
declare
    member_id text := coalesce(new.id, old.id);
    -- The guide's role counts if both forms name one subscription.
    roles_before jsonb := case when old.existence = 'present' then old.further_memberships
        || case when old.member_of is null then '{}' else jsonb_build_object(old.member_of, old.member_role) end
        else '{}' end;
    roles_after jsonb := case when new.existence = 'present' then new.further_memberships
        || case when new.member_of is null then '{}' else jsonb_build_object(new.member_of, new.member_role) end
        else '{}' end;
    change record;
    counted record;
    cause record;
    source text;
begin
    for change in
        select coalesce(b.key, a.key) as subscription_id, b.value as was, a.value as is_now,
            (a.value is not distinct from 'user')::int - (b.value is not distinct from 'user')::int as users,
            (a.value is not distinct from 'manager')::int - (b.value is not distinct from 'manager')::int as managers
        from jsonb_each_text(roles_before) b full join jsonb_each_text(roles_after) a on a.key = b.key
        where b.value is distinct from a.value
        order by 1
    loop
        if change.is_now is null then
            -- The address by which the seat was given belonged to this membership. An act of the person drops it too,
            -- and locks the record before the membership, as this does.
            update member_records set typed_email = null, left_at = clock_timestamp()
            where subscription_id = change.subscription_id and customer_id = member_id and typed_email is not null;
            delete from memberships where subscription_id = change.subscription_id and customer_id = member_id;
        else
            insert into memberships (subscription_id, customer_id, role)
            values (change.subscription_id, member_id, change.is_now)
            on conflict (subscription_id, customer_id) do update set role = excluded.role;
            -- A deletion that Stripe has refused is given up once the customer has a seat again.
            update seat_customers set deleting_at = null
            where customer_id = member_id and deleting_at is not null and change.was is null;
        end if;
        select array_agg(c.id) as ids, coalesce(sum(c.users), 0) + change.users as users,
            coalesce(sum(c.managers), 0) + change.managers as managers into counted
        from (select * from membership_counts where subscription_id = change.subscription_id
            for update skip locked) c;
        if counted.ids is null then
            insert into membership_counts (subscription_id, users, managers)
            values (change.subscription_id, counted.users, counted.managers);
        else
            delete from membership_counts where id = any (counted.ids)
              and (id <> counted.ids[1] or (counted.users = 0 and counted.managers = 0));
            update membership_counts set users = counted.users, managers = counted.managers
            where id = counted.ids[1];
        end if;

        select o.id, o.principal, o.actor_id, o.kind::text into cause
        from operation_steps t join operations o on o.id = t.operation_id
        where (t.customer_id = member_id or (t.customer_id is null and t.operation_id = new.operation_id))
          and t.settled_at is null and t.sent_at is not null
          and (t.subscription_id = change.subscription_id or t.writes ? ('billing_' || change.subscription_id)
              or (t.writes ? 'billing_shared_subscription_id'
                  and change.subscription_id in (old.member_of, new.member_of)))
        order by t.subscription_id = change.subscription_id desc
        limit 1;
        source := source_of_change(cause.id, member_id);
        perform record_fact(
            case when change.was is null then 'seat.assigned' when change.is_now is null then 'seat.released'
                 else 'seat.role_changed' end,
            change.subscription_id, member_id, null, source, cause.id,
            jsonb_strip_nulls(jsonb_build_object('role', change.is_now, 'previous_role', change.was,
                'reason', case
                    when change.is_now is not null then null
                    when new.existence is distinct from 'present' then 'customer_deleted'
                    when cause.kind = 'leave' then 'left'
                    when cause.kind = 'move' then 'moved'
                    when cause.kind = 'cleanup' then 'subscription_ended'
                    else 'removed' end)));
        continue when tg_op = 'DELETE' or (tg_op = 'INSERT' and cause.id is null);
        insert into audit_events (subscription_id, source, operation_id, principal, actor_id, action, customer_id,
            before, after)
        values (change.subscription_id, source, cause.id, cause.principal, cause.actor_id,
            case when change.was is null then 'member_added' when change.is_now is null then 'member_removed'
                 else 'role_changed' end,
            new.id, jsonb_strip_nulls(jsonb_build_object('role', change.was)),
            jsonb_strip_nulls(jsonb_build_object('role', change.is_now)));
    end loop;
    return null;
end $$;

create or replace trigger record_membership_insert after insert on customers for each row
    when (new.member_of is not null or new.further_memberships <> '{}')
    execute function record_membership_change();

-- No statement of the service deletes a customer. If an operator does it in SQL, the projection follows.
create or replace trigger record_membership_delete after delete on customers for each row
    when (old.member_of is not null or old.further_memberships <> '{}')
    execute function record_membership_change();

-- PostgreSQL reads a trigger's condition again for each statement, so a short one is cheaper than a precise one.
create or replace trigger record_membership_update after update on customers for each row
    when ((old.member_of, old.member_role, old.further_memberships, old.existence)
          is distinct from (new.member_of, new.member_role, new.further_memberships, new.existence))
    execute function record_membership_change();
