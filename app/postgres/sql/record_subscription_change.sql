-- Return what the application is told of a subscription.
create or replace function subscription_state(
    status text, cancel_at bigint, cancel_at_period_end boolean, ended_at bigint, items jsonb)
returns jsonb language plpgsql immutable as $$
begin
    return jsonb_build_object('status', status, 'cancel_at', cancel_at,
        'cancel_at_period_end', cancel_at_period_end, 'ended_at', ended_at, 'items', coalesce((
            select jsonb_agg(jsonb_build_object('id', i -> 'id', 'product_id', i -> 'product_id',
                'price_id', i -> 'price_id', 'quantity', i -> 'quantity'))
            from jsonb_array_elements(items) i), '[]'));
end $$;

-- Record a change of a subscription in the transaction in which the mirror applies it: in the audit trail, and as a fact
-- of which the application learns. If an unsettled operation sent the change, both name that operation; otherwise the
-- source is the Dashboard, or the reconcile that has found the change.
create or replace function record_subscription_change() returns trigger language plpgsql as $$
declare
    cause record;
    source text;
    was jsonb;
    is_now jsonb;
begin
    select o.id, o.principal, o.actor_id into cause
    from operation_steps t join operations o on o.id = t.operation_id
    where o.subscription_id = new.id and t.settled_at is null and t.sent_at is not null
      and t.action not in ('add', 'remove', 'update')
    limit 1;
    source := source_of_change(cause.id, new.id);
    was := subscription_state(old.status, old.cancel_at, old.cancel_at_period_end, old.ended_at, old.items);
    is_now := subscription_state(new.status, new.cancel_at, new.cancel_at_period_end, new.ended_at, new.items);
    perform record_fact(
        case when was <> is_now or old.existence <> new.existence then 'subscription.changed' else 'owner' end,
        new.id, null, null, source, cause.id,
        is_now || jsonb_build_object('changes_access',
            old.status <> new.status or old.existence <> new.existence or old.customer_id <> new.customer_id
            or old.cancel_at is distinct from new.cancel_at
            or jsonb_path_query_array(old.items, '$[*].product_id')
                is distinct from jsonb_path_query_array(new.items, '$[*].product_id')));
    was := jsonb_build_object('owner', old.owner_id, 'status', old.status, 'cancel_at', old.cancel_at,
        'cancel_at_period_end', old.cancel_at_period_end, 'items', (select jsonb_agg(jsonb_build_object(
            'id', i -> 'id', 'price', i -> 'price_id', 'quantity', i -> 'quantity'))
            from jsonb_array_elements(old.items) i));
    is_now := jsonb_build_object('owner', new.owner_id, 'status', new.status, 'cancel_at', new.cancel_at,
        'cancel_at_period_end', new.cancel_at_period_end, 'items', (select jsonb_agg(jsonb_build_object(
            'id', i -> 'id', 'price', i -> 'price_id', 'quantity', i -> 'quantity'))
            from jsonb_array_elements(new.items) i));
    if was = is_now then
        return null;
    end if;
    insert into audit_events (subscription_id, source, operation_id, principal, actor_id, action, before, after)
    select new.id, source, cause.id, cause.principal, cause.actor_id, 'subscription_changed',
        coalesce(jsonb_object_agg(k, v) filter (where v is distinct from is_now -> k), '{}'),
        coalesce(jsonb_object_agg(k, is_now -> k) filter (where v is distinct from is_now -> k), '{}')
    from jsonb_each(was) as changed(k, v);
    return null;
end $$;

-- A renewal changes only the periods of the items, which are not recorded. Calling the function for it took a fifth of
-- an event's time, so the trigger's condition compares the recorded fields of the items.
create or replace trigger record_subscription_update after update on subscriptions for each row
    when ((old.items is distinct from new.items
           and (jsonb_path_query_array(old.items, '$[*].id') <> jsonb_path_query_array(new.items, '$[*].id')
                or jsonb_path_query_array(old.items, '$[*].price_id')
                    <> jsonb_path_query_array(new.items, '$[*].price_id')
                or jsonb_path_query_array(old.items, '$[*].quantity')
                    <> jsonb_path_query_array(new.items, '$[*].quantity')))
          or old.owner_id is distinct from new.owner_id
          or old.status is distinct from new.status or old.cancel_at is distinct from new.cancel_at
          or old.cancel_at_period_end is distinct from new.cancel_at_period_end
          or old.existence is distinct from new.existence or old.customer_id is distinct from new.customer_id)
    execute function record_subscription_change();
