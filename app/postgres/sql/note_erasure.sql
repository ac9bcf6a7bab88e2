-- Note a customer that Stripe reports as deleted, in the statement that applies the deletion. The worker then erases the
-- e-mail and the name of that customer everywhere else. The address stands here until that is done.
create or replace function note_erasure() returns trigger language plpgsql as $$
begin
    insert into erasures (customer_id, email)
    values (new.id, case when tg_op = 'UPDATE' then lower(old.email collate "C") end)
    on conflict (customer_id) do nothing;
    return null;
end $$;

create or replace trigger note_erasure_insert after insert on customers for each row
    when (new.existence = 'deleted') execute function note_erasure();

create or replace trigger note_erasure_update after update on customers for each row
    when (new.existence = 'deleted' and old.existence <> 'deleted') execute function note_erasure();
