-- Facts of which the audit trail has no entry of its own, or whose entry is the fact.

create or replace function record_subscription_facts() returns trigger language plpgsql as $$
begin
    perform record_fact('subscription.changed', new.id, null, null, source_of_change(o.id, new.id), o.id,
        subscription_state(new.status, new.cancel_at, new.cancel_at_period_end, new.ended_at, new.items)
            || jsonb_build_object('changes_access', true))
    from (select) one left join operations o on o.id = new.operation_id and o.settled_at is null;
    return null;
end $$;

create or replace trigger record_subscription_insert after insert on subscriptions for each row
    execute function record_subscription_facts();

-- A subscription can be copied before its owner. So the owner is looked at again when the customer appears or goes.
create or replace function record_customer_fact() returns trigger language plpgsql as $$
begin
    perform record_fact('owner', null, new.id, null, source_of_change(null, new.id), null, '{}');
    return null;
end $$;

create or replace trigger record_customer_insert after insert on customers for each row
    when (new.existence = 'present') execute function record_customer_fact();

create or replace trigger record_customer_existence after update on customers for each row
    when (old.existence <> new.existence) execute function record_customer_fact();

create or replace function record_product_fact() returns trigger language plpgsql as $$
begin
    perform record_fact('product', null, null, new.id, source_of_change(null, new.id), null, '{}');
    return null;
end $$;

create or replace trigger record_product_insert after insert on products for each row
    when (new.supports_sharing) execute function record_product_fact();

create or replace trigger record_product_flag after update on products for each row
    when (old.supports_sharing <> new.supports_sharing) execute function record_product_fact();

create or replace function record_operation_fact() returns trigger language plpgsql as $$
begin
    perform record_fact('operation.settled', new.subscription_id, null, null, 'api', new.id,
        jsonb_build_object('state', new.state, 'action', new.kind));
    return null;
end $$;

create or replace trigger record_operation_settled after update on operations for each row
    when (old.settled_at is null and new.settled_at is not null and new.subscription_id <> '')
    execute function record_operation_fact();

-- Every change of an invitation has an entry in the audit trail, so the entry is the fact.
create or replace function record_invitation_fact() returns trigger language plpgsql as $$
begin
    perform record_fact(
        case new.action when 'invitation_resent' then 'invitation.created' else replace(new.action, '_', '.') end,
        new.subscription_id, new.customer_id, null, new.source, new.operation_id,
        jsonb_build_object('invitation_id', i.id, 'role', i.role, 'generation', i.generation,
            'expires_at', extract(epoch from i.expires_at)))
    from invitations i where i.id = new.after ->> 'invitation_id';
    return null;
end $$;

create or replace trigger record_invitation after insert on audit_events for each row
    when (new.action like 'invitation\_%') execute function record_invitation_fact();
