-- Keep which memberships nobody has claimed, and their number for each subscription. A membership is unclaimed while
-- `member_records` has the address by which its seat was given. A transaction that changes both rows locks the record first, so an
-- act of the person and an event of their customer cannot wait for each other.
create or replace function mark_unclaimed() returns trigger language plpgsql as $$
begin
    perform 1 from member_records
    where subscription_id = new.subscription_id and customer_id = new.customer_id and typed_email is not null
    for no key update;
    new.unclaimed := found;
    return new;
end $$;

create or replace trigger mark_unclaimed before insert on memberships for each row execute function mark_unclaimed();

create or replace function follow_typed_email() returns trigger language plpgsql as $$
declare
    is_typed boolean := new.typed_email is not null;
begin
    update memberships set unclaimed = is_typed
    where subscription_id = coalesce(new.subscription_id, old.subscription_id)
      and customer_id = coalesce(new.customer_id, old.customer_id) and unclaimed <> is_typed;
    return null;
end $$;

create or replace trigger follow_typed_email_insert after insert on member_records for each row
    when (new.typed_email is not null) execute function follow_typed_email();

create or replace trigger follow_typed_email_update after update of typed_email on member_records for each row
    when ((old.typed_email is null) <> (new.typed_email is null)) execute function follow_typed_email();

-- No statement of the service deletes a record. If an operator does it in SQL, the membership follows.
create or replace trigger follow_typed_email_delete after delete on member_records for each row
    when (old.typed_email is not null) execute function follow_typed_email();

-- A count never waits: see record_membership_change.sql.
create or replace function count_unclaimed() returns trigger language plpgsql as $$
declare
    changed_id text := coalesce(new.subscription_id, old.subscription_id);
    counted record;
begin
    select array_agg(c.id) as ids,
        coalesce(sum(c.users), 0) + coalesce(new.unclaimed and new.role = 'user', false)::int
            - coalesce(old.unclaimed and old.role = 'user', false)::int as users,
        coalesce(sum(c.managers), 0) + coalesce(new.unclaimed and new.role = 'manager', false)::int
            - coalesce(old.unclaimed and old.role = 'manager', false)::int as managers into counted
    from (select * from unclaimed_counts where subscription_id = changed_id for update skip locked) c;
    if counted.ids is null then
        insert into unclaimed_counts (subscription_id, users, managers)
        values (changed_id, counted.users, counted.managers);
    else
        delete from unclaimed_counts where id = any (counted.ids)
          and (id <> counted.ids[1] or (counted.users = 0 and counted.managers = 0));
        update unclaimed_counts set users = counted.users, managers = counted.managers where id = counted.ids[1];
    end if;
    return null;
end $$;

create or replace trigger count_unclaimed_insert after insert on memberships for each row
    when (new.unclaimed) execute function count_unclaimed();

create or replace trigger count_unclaimed_update after update of role, unclaimed on memberships for each row
    when ((old.unclaimed or new.unclaimed) and (old.unclaimed, old.role) is distinct from (new.unclaimed, new.role))
    execute function count_unclaimed();

create or replace trigger count_unclaimed_delete after delete on memberships for each row
    when (old.unclaimed) execute function count_unclaimed();
